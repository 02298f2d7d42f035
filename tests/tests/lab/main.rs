//! The lab proves itself: what the other areas rely on is asserted here, so that a broken lab does not look like a broken product.

mod hard_day;

/// Needs root and namespaces.
mod as_root {
    use std::{
        io::{Read, Write},
        net::{Ipv4Addr, SocketAddr},
        process,
        time::Duration,
    };

    use anyhow::Result;
    use integration_tests::{
        command,
        lab::{BOOT_FOLDER, Ended, HOST, Lab, NodeSpec},
        wait,
    };

    const SOON: Duration = Duration::from_secs(20);

    fn two() -> Result<Lab> {
        Lab::start(&[NodeSpec::new("n1"), NodeSpec::new("n2")])
    }

    #[test]
    fn nodes_have_their_own_names_files_and_processes() -> Result<()> {
        let lab = two()?;
        let (n1, n2) = (lab.node("n1")?, lab.node("n2")?);
        assert_eq!(n1.ok(&["hostname"])?, "n1");
        assert_eq!(String::from_utf8(n2.ssh(&["hostname"])?.stdout)?, "n2\n");
        n1.put("/etc/kato/only-here", b"one", 0o640)?;
        assert_eq!(n1.read("/etc/kato/only-here")?, b"one");
        assert_eq!(n1.ok(&["stat", "-c", "%a", "/etc/kato/only-here"])?, "640");
        assert!(n1.exists("/etc/kato/only-here")? && !n2.exists("/etc/kato/only-here")?);
        assert!(
            !std::path::Path::new("/etc/kato/only-here").exists(),
            "the machine was written to"
        );
        assert_eq!(n1.ok(&["cat", "/proc/1/comm"])?, "lab");
        assert_eq!(std::fs::read(n1.root()?.join("etc/kato/only-here"))?, b"one");
        Ok(())
    }

    #[test]
    fn arguments_arrive_as_they_stand_by_both_ways() -> Result<()> {
        let lab = Lab::start(&[NodeSpec::new("n1")])?;
        let n1 = lab.node("n1")?;
        let word = "two  words; $HOME 'quoted' \"twice\"\nand a line";
        assert_eq!(n1.exec(&["printf", "%s", word])?.stdout, word.as_bytes());
        assert_eq!(n1.ssh(&["printf", "%s", word])?.stdout, word.as_bytes());
        assert_eq!(n1.exec(&["false"])?.status.code(), Some(1));
        assert_eq!(n1.ssh(&["sh", "-c", "exit 75"])?.status.code(), Some(75));
        Ok(())
    }

    #[test]
    fn nodes_reach_each_other_by_name_without_a_question() -> Result<()> {
        let lab = two()?;
        let n1 = lab.node("n1")?;
        assert_eq!(n1.ok(&["ssh", "-o", "BatchMode=yes", "n2", "hostname"])?, "n2");
        n1.put("/root/payload", b"by scp", 0o600)?;
        n1.ok(&[
            "scp",
            "-q",
            "-o",
            "BatchMode=yes",
            "/root/payload",
            "n2:/root/payload",
        ])?;
        assert_eq!(lab.node("n2")?.read("/root/payload")?, b"by scp");
        Ok(())
    }

    #[test]
    fn a_small_disk_is_really_full() -> Result<()> {
        let lab = Lab::start(&[
            NodeSpec::new("small").disk_bytes(24 << 20),
            NodeSpec::new("large"),
        ])?;
        let forty_megabytes = vec![7; 40 << 20];
        let error = lab
            .node("small")?
            .put("/var/big", &forty_megabytes, 0o600)
            .unwrap_err();
        assert!(error.to_string().contains("No space left"), "{error}");
        lab.node("large")?.put("/var/big", &forty_megabytes, 0o600)?;
        Ok(())
    }

    #[test]
    fn a_cut_node_is_unreachable_and_heals() -> Result<()> {
        let lab = two()?;
        let (n1, n2) = (lab.node("n1")?, lab.node("n2")?);
        n2.cut()?;
        let unreachable = n1.exec(&[
            "ssh",
            "-o",
            "BatchMode=yes",
            "-o",
            "ConnectTimeout=1",
            "n2",
            "true",
        ])?;
        assert_eq!(unreachable.status.code(), Some(255));
        assert_eq!(n2.ok(&["hostname"])?, "n2", "exec needs no network");
        n2.heal()?;
        n2.wait_reachable()?;
        n1.ok(&["ssh", "-o", "BatchMode=yes", "n2", "true"])?;
        Ok(())
    }

    #[test]
    fn a_reboot_comes_back_with_its_disk_and_starts_its_boot_scripts() -> Result<()> {
        let lab = Lab::start(&[NodeSpec::new("n1")])?;
        let n1 = lab.node("n1")?;
        let script = b"#!/bin/sh\ncat /proc/sys/kernel/random/uuid >>/var/boots\n";
        n1.put(&format!("{BOOT_FOLDER}/10-count"), script, 0o755)?;
        n1.ssh(&["reboot"])?;
        n1.wait_boots(2)?;
        let ran = wait::until("boot script", SOON, || {
            n1.exists("/var/boots").ok().filter(|there| *there)
        });
        ran?;
        assert!(
            n1.exists("/run/sshd.pid")?,
            "/run is new at each boot, and sshd writes there"
        );
        Ok(())
    }

    #[test]
    fn power_off_and_a_crash_stay_down_until_power_is_back() -> Result<()> {
        let lab = two()?;
        let (n1, n2) = (lab.node("n1")?, lab.node("n2")?);
        n1.put("/var/kept", b"kept", 0o600)?;
        n1.ssh(&["poweroff"])?;
        n1.wait_ended(Ended::PoweredOff)?;
        assert!(n1.exec(&["true"]).is_err());
        n2.crash()?;
        assert_eq!((n1.boots(), n2.boots()), (1, 1));
        n1.boot()?;
        n2.boot()?;
        assert_eq!(n1.read("/var/kept")?, b"kept");
        assert_eq!((n1.boots(), n2.boots()), (2, 2));
        Ok(())
    }

    #[test]
    fn detached_work_outlives_its_session_and_its_end_is_seen() -> Result<()> {
        let lab = Lab::start(&[NodeSpec::new("n1")])?;
        let n1 = lab.node("n1")?;
        n1.ssh(&[
            "sh",
            "-c",
            "setsid sh -c 'echo $$ >/var/pid; exec tail -f /dev/null' </dev/null >/dev/null 2>&1 &",
        ])?;
        let pid = wait::until("the number of the detached process", SOON, || {
            String::from_utf8(n1.read("/var/pid").ok()?)
                .ok()
                .filter(|text| text.ends_with('\n'))
        })?;
        let pid = pid.trim();
        n1.ok(&["kill", "-0", pid])?;
        n1.ok(&["kill", "-KILL", pid])?;
        wait::until("the detached process is reaped", SOON, || {
            let answer = n1.exec(&["kill", "-0", pid]).ok()?;
            (!answer.status.success()).then_some(())
        })
    }

    #[test]
    fn sockets_of_the_test_stand_in_the_labs_network() -> Result<()> {
        let lab = Lab::start(&[NodeSpec::new("n1")])?;
        let n1 = lab.node("n1")?;
        let listener = lab.listen(0)?;
        let port = listener.local_addr()?.port();
        assert_eq!(listener.local_addr()?.ip(), HOST);
        let server = std::thread::spawn(move || -> std::io::Result<()> {
            let (mut client, _) = listener.accept()?;
            client.write_all(b"from the test")
        });
        let fetch = format!("exec 3<>/dev/tcp/{HOST}/{port}; cat <&3");
        assert_eq!(n1.ok(&["bash", "-c", &fetch])?, "from the test");
        server.join().unwrap()?;
        let mut banner = [0; 4];
        n1.connect(SocketAddr::from((Ipv4Addr::LOCALHOST, 22)))?
            .read_exact(&mut banner)?;
        assert_eq!(&banner, b"SSH-");
        Ok(())
    }

    #[test]
    fn background_programs_speak_and_end_with_their_handle() -> Result<()> {
        let lab = Lab::start(&[NodeSpec::new("n1")])?;
        let n1 = lab.node("n1")?;
        let program = n1.spawn(&["sh", "-c", "echo $$; exec tail -f /dev/null"])?;
        let pid = program.line(SOON)?;
        n1.ok(&["kill", "-0", &pid])?;
        drop(program);
        wait::until("the background program is gone", SOON, || {
            let answer = n1.exec(&["kill", "-0", &pid]).ok()?;
            (!answer.status.success()).then_some(())
        })?;
        let on_host = lab.spawn_on_host(&["ip", "-o", "addr", "show", "br0"])?;
        assert!(on_host.line(SOON)?.contains("10.99.0.1/24"));
        Ok(())
    }

    #[test]
    fn nothing_is_left_when_the_lab_is_dropped() -> Result<()> {
        let mark = format!("lab-mark-{}", process::id());
        let lab = two()?;
        let folder = lab.folder().to_owned();
        for name in ["n1", "n2"] {
            let work = format!("exec -a {mark} tail -f /dev/null");
            lab.node(name)?.ssh(&[
                "bash",
                "-c",
                &format!("setsid bash -c '{work}' </dev/null >/dev/null 2>&1 &"),
            ])?;
        }
        let running = || -> Result<String> {
            let output = command::run(pgrep(&mark), SOON, &[])?;
            Ok(String::from_utf8(output.stdout)?)
        };
        wait::until("both marks run", SOON, || {
            (running().ok()?.lines().count() == 2).then_some(())
        })?;
        drop(lab);
        assert_eq!(running()?, "");
        assert!(!folder.exists());
        let mounts = std::fs::read_to_string("/proc/mounts")?;
        assert!(!mounts.contains("kato-lab-") && !command::ok(&["ip", "-o", "link"])?.contains("br0"));
        Ok(())
    }

    /// The marked processes of the machine, which are seen from outside too while the lab runs.
    fn pgrep(mark: &str) -> process::Command {
        let mut command = command::new("pgrep");
        command.args(["-f", &format!("^{mark}")]);
        command
    }
}
