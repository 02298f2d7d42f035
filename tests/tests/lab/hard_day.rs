//! A hard day of one machine: local changes in every class of folder, a disk that is nearly full, a network that drops every
//! third connection, and a restart in the middle.

/// Needs root and namespaces.
mod as_root {
    use std::{fmt::Write as _, process::Output, time::Duration};

    use anyhow::{Context as _, Result, ensure};
    use integration_tests::{
        binaries,
        cutter::{Cut, Cutter},
        lab::{Lab, Node, NodeSpec},
        releases::{Repository, TestModule, TestRelease},
        static_server::StaticServer,
    };

    /// Where operators call `kato`.
    const KATO: &str = "/home/stackato/bin/kato";
    /// How long one run may take on a busy machine and a bad network.
    const PATIENCE: Duration = Duration::from_secs(150);
    /// The machine's disk.
    const DISK: u64 = 96 << 20;
    /// What is free of it on that day.
    const FREE: u64 = 24 << 20;
    /// What takes the rest.
    const BALLAST: &str = "/var/ballast";
    /// What the new release brings; it is needed three times: downloaded, unpacked, and in the backup of the next one.
    const PAYLOAD: usize = 16 << 20;

    /// The platform: out of service while a file is there. With another file it fills the disk when it is asked to retire,
    /// as a log may do in the worst moment, on a file system that could not hold the space for the steps to come.
    const PLATFORM: &str = r#"#!/bin/sh
set -eu
mkdir -p /var/platform
case $1 in
    retire)
        touch /var/platform/retired
        if [ -e /var/platform/fills-the-disk ]; then
            rm -f /var/stackato/upgrade/state/.kato-r*
            dd if=/dev/zero of=/var/log-of-others bs=64k 2>/dev/null || true
        fi ;;
    rejoin) rm -f /var/platform/retired ;;
    resident) echo '{"count": 0, "blockers": []}' ;;
esac
"#;

    /// All machines of a lab have one kernel and so one boot id; this gives each boot its own.
    const BOOT_SCRIPT: (&str, &str) = (
        "/etc/lab/boot.d/10-boot-id",
        "#!/bin/sh\nset -eu\ncat /proc/sys/kernel/random/uuid >/run/boot_id\nmount --bind /run/boot_id /proc/sys/kernel/random/boot_id\n",
    );

    struct Day {
        lab: Lab,
        network: Cutter,
        _host: StaticServer,
    }

    fn release(version: &str, restart: &str) -> TestRelease {
        let mut release = TestRelease::standard(version);
        release.head = format!("restart = \"{restart}\"\nsafe_paths = [\"/s/code/console/uploads/**\"]\n");
        let text = format!("version {version}\n");
        release.modules.push(TestModule::new(
            "static",
            "policy = \"overlay\"\ndest = \"/s/static\"",
            &[("theme.css", &text), ("logo", "always the same\n")],
        ));
        release
    }

    impl Day {
        /// A machine with 1.0.0 and local changes; 2.0.0 is large and ends with `restart`.
        async fn begin(restart: &str) -> Result<Self> {
            let lab = Lab::start(&[NodeSpec::new("n1").disk_bytes(DISK)])?;
            let repository = Repository::empty(&lab.folder().join("upgrade-host")).await?;
            repository.publish(&release("1.0.0", "none")).await?;
            repository
                .publish(&release("2.0.0", restart).with_payload(PAYLOAD))
                .await?;
            let host = StaticServer::start(&repository.dir()).await?;
            let network = Cutter::start_with(lab.listen(0)?, host.address())?;
            let day = Self {
                lab,
                network,
                _host: host,
            };
            let node = day.node()?;
            node.put("/etc/kato/kato.toml", day.settings()?.as_bytes(), 0o644)?;
            node.put("/etc/kato/root.json", &std::fs::read(repository.root())?, 0o644)?;
            node.put("/etc/kato/platform.sh", PLATFORM.as_bytes(), 0o755)?;
            node.put(BOOT_SCRIPT.0, BOOT_SCRIPT.1.as_bytes(), 0o755)?;
            node.ok(&[BOOT_SCRIPT.0])?;
            node.ok(&["mkdir", "-p", "/home/stackato/bin"])?;
            node.ok(&["ln", "-s", &binaries::built("kato")?.display().to_string(), KATO])?;
            ends(&day.upgrade(&["--version", "1.0.0"])?, 0)?;
            for (path, content) in CHANGES {
                node.put(path, content.as_bytes(), 0o644)?;
            }
            Ok(day)
        }

        fn settings(&self) -> Result<String> {
            let mut text = format!(
                "[node]\nid = \"n1\"\nroles = [\"controller\", \"dea\"]\n[release]\nurl = \"{}\"\n[platform]\nreboot = {{ argv = [\"reboot\"] }}\n",
                self.network.url()
            );
            for verb in ["retire", "rejoin", "resident"] {
                writeln!(
                    text,
                    "{verb} = {{ argv = [\"/etc/kato/platform.sh\", \"{verb}\"] }}"
                )?;
            }
            Ok(text)
        }

        fn node(&self) -> Result<Node<'_>> {
            self.lab.node("n1")
        }

        fn upgrade(&self, more: &[&str]) -> Result<Output> {
            let argv = [&[KATO, "node", "upgrade", "--skip-confirmation"], more].concat();
            self.node()?.exec_within(PATIENCE, &argv, &[])
        }

        fn version(&self) -> Result<String> {
            let said = self
                .node()?
                .ok(&[KATO, "node", "upgrade", "--status", "--json"])?;
            let status: serde_json::Value = serde_json::from_str(&said)?;
            Ok(status["version"].as_str().unwrap_or("none").to_owned())
        }

        /// Leaves `free` bytes of the disk.
        fn leave(&self, free: u64) -> Result<()> {
            let node = self.node()?;
            let said = node.ok(&["stat", "-f", "-c", "%a %S", "/"])?;
            let (blocks, size) = said.split_once(' ').context("blocks and their size")?;
            let has = blocks.parse::<u64>()? * size.parse::<u64>()?;
            let ballast = has.saturating_sub(free).to_string();
            node.ok(&["fallocate", "-l", &ballast, BALLAST])?;
            Ok(())
        }

        /// Every local file is where its class says that it is.
        fn is_everything_accounted_for(&self) -> Result<()> {
            let node = self.node()?;
            for (path, content) in CHANGES {
                let name = path.rsplit_once('/').map_or(*path, |(_, name)| name);
                let is_in_place = node.read(path).is_ok_and(|found| found == content.as_bytes());
                let saved = node.ok(&["find", "/var/stackato/upgrade/backup", "-name", name])?;
                let is_saved = saved
                    .lines()
                    .any(|saved| node.read(saved).is_ok_and(|found| found == content.as_bytes()));
                // What was changed in the folder of a version stays there.
                let behind = node.ok(&["find", "/s/code/app", "-name", name])?;
                let is_behind = behind
                    .lines()
                    .any(|behind| node.read(behind).is_ok_and(|found| found == content.as_bytes()));
                let archives =
                    node.ok(&["find", "/var/stackato/upgrade/backup", "-name", "files.tar.zst"])?;
                let below = path.trim_start_matches('/');
                let mut is_archived = false;
                for archive in archives.lines() {
                    let found = node.exec(&["tar", "--zstd", "-xOf", archive, below])?;
                    is_archived |= found.status.success() && found.stdout == content.as_bytes();
                }
                let is_there = is_in_place || is_saved || is_behind || is_archived;
                ensure!(is_there, "{path} is lost");
            }
            for (path, content) in STAY {
                let found = String::from_utf8(node.read(path)?)?;
                ensure!(found == *content, "{path}: {found}");
            }
            Ok(())
        }
    }

    /// What was changed here: in a folder that is replaced, in one that is versioned, in two overlays, below a safe path.
    const CHANGES: &[(&str, &str)] = &[
        ("/s/code/console/theme.css", "a theme of ours"),
        ("/s/code/console/uploads/deep/picture", "a picture"),
        ("/s/code/app/current/local.txt", "beside the program"),
        ("/s/etc/app.conf", "changed here"),
        ("/s/etc/local.conf", "only here"),
        ("/s/static/theme.css", "a style of ours"),
        ("/s/static/extra.css", "only here as well"),
    ];

    /// The classes of folders with local changes, as the plan calls them, and one file of each.
    const CLASSES: &[(&str, &str)] = &[
        (
            "console (replace at /s/code/console)",
            "/s/code/console/theme.css",
        ),
        ("app (versioned at /s/code/app)", "local.txt"),
        ("static (overlay at /s/static)", "/s/static/theme.css"),
    ];

    /// What must still be in its place: safe paths, and files that no release knows.
    const STAY: &[(&str, &str)] = &[
        ("/s/code/console/uploads/deep/picture", "a picture"),
        ("/s/etc/local.conf", "only here"),
        ("/s/static/extra.css", "only here as well"),
    ];

    fn said(output: &Output) -> String {
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    fn ends(output: &Output, code: i32) -> Result<String> {
        let said = said(output);
        ensure!(
            output.status.code() == Some(code),
            "ended with {}, expected {code}:\n{said}",
            output.status
        );
        Ok(said)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn c13_r41_r42_r44_local_changes_a_small_disk_a_bad_network_and_a_restart() -> Result<()> {
        let day = Day::begin("reboot").await?;
        let node = day.node()?;
        day.leave(FREE)?;
        day.network.arm(3, Cut::Every);

        let said = ends(&day.upgrade(&[])?, 20)?;
        for part in [
            "not enough space on `/`: need ",
            ", have ",
            " short",
            "hint: nothing was changed",
        ] {
            ensure!(said.contains(part), "`{part}` is not in: {said}");
        }
        ensure!(day.version()? == "1.0.0", "{}", day.version()?);
        ensure!(!node.exists("/var/platform/retired")?, "it is out of service");
        for (path, content) in CHANGES {
            ensure!(node.read(path)? == content.as_bytes(), "{path} was changed");
        }

        node.ok(&["rm", BALLAST])?;
        // The restart cuts the session of whoever called: how that ends says nothing.
        day.upgrade(&[]).ok();
        node.wait_boots(2)?;
        ensure!(day.version()? != "2.0.0", "not complete before the restart");
        ends(&day.upgrade(&["--resume"])?, 0)?;
        ensure!(day.version()? == "2.0.0", "{}", day.version()?);
        ensure!(!node.exists("/var/platform/retired")?, "it is out of service");
        day.is_everything_accounted_for()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn c13_a_disk_that_others_fill_in_the_middle_is_named_and_the_node_is_put_back() -> Result<()> {
        let day = Day::begin("none").await?;
        let node = day.node()?;
        let plan = day.upgrade(&["--plan"])?;
        let plan = String::from_utf8(plan.stdout)?;
        for (class, file) in CLASSES {
            let (_, listed) = plan
                .split_once(class)
                .with_context(|| format!("{class}: {plan}"))?;
            ensure!(listed.contains(file), "{file} is not listed: {plan}");
        }
        node.put("/var/platform/fills-the-disk", b"", 0o644)?;

        let output = day.upgrade(&[])?;
        let said = said(&output);
        ensure!(
            matches!(output.status.code(), Some(20 | 21)),
            "{}: {said}",
            output.status
        );
        for part in ["no room for `/", " on /: ", " short", "free space on /"] {
            ensure!(said.contains(part), "`{part}` is not in: {said}");
        }
        ensure!(!node.exists("/var/platform/retired")?, "it is out of service");

        node.ok(&["rm", "/var/log-of-others", "/var/platform/fills-the-disk"])?;
        ends(&day.upgrade(&[])?, 0)?;
        ensure!(day.version()? == "2.0.0", "{}", day.version()?);
        day.is_everything_accounted_for()
    }
}
