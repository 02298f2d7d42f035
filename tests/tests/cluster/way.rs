//! Ways that are not the usual one: through a jump host, of one node by name, with a node that is not well, with roles that change on the way, and
//! what stands in the way on a node, seen from Core.

/// Needs root and namespaces.
mod as_root {
    use std::time::Duration;

    use anyhow::{Context as _, Result, ensure};
    use integration_tests::{
        releases::{TestModule, TestRelease},
        static_server::Fault,
        wait,
    };

    use crate::site::{KATO, Site, text, verb, wait_event, with_gates};

    const SOON: Duration = Duration::from_secs(60);

    fn two() -> TestRelease {
        with_gates(TestRelease::standard("2.0.0").with_payload(2 << 20), &["dea"])
    }

    /// The addresses from which somebody is connected to the sshd of `node`, as the kernel writes them.
    fn ssh_peers(site: &Site, node: &str) -> Result<Vec<String>> {
        let table = site.node(node)?.ok(&["cat", "/proc/net/tcp"])?;
        let peers = table.lines().skip(1).filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let (local, peer, state) = (words.get(1)?, words.get(2)?, words.get(3)?);
            let is_ssh = local.ends_with(":0016") && *state == "01";
            is_ssh.then(|| peer.split(':').next().unwrap_or_default().to_owned())
        });
        Ok(peers.collect())
    }

    /// An address as the kernel writes it: the bytes in the machine's order.
    fn kernel(site: &Site, node: &str) -> Result<String> {
        let octets = site.node(node)?.address().octets();
        Ok(format!("{:08X}", u32::from_ne_bytes(octets)))
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn r15_a_node_behind_a_jump_host_of_ssh_config_is_upgraded_through_it() -> Result<()> {
        let site = Site::at_one(&[two()]).await?;
        let core = site.node("core")?;
        let w1 = site.node("w1")?.address().to_string();
        let c1 = site.node("c1")?.address().to_string();
        // Core knows the worker by a name that only ssh_config explains.
        let config = format!("Host behind\n    HostName {w1}\n    ProxyJump stackato@{c1}\n");
        core.put("/root/.ssh/config", config.as_bytes(), 0o600)?;
        let inventory = String::from_utf8(core.read("/etc/kato/cluster.toml")?)?;
        let inventory = inventory.replace(&format!("address = \"{w1}\""), "address = \"behind\"");
        ensure!(inventory.contains("behind"), "{inventory}");
        core.put("/etc/kato/cluster.toml", inventory.as_bytes(), 0o644)?;

        site.hold_at("w1", "module")?;
        let run = site.begin()?;
        site.wait_at("w1", "module")?;
        let peers = ssh_peers(&site, "w1")?;
        ensure!(peers.contains(&kernel(&site, "c1")?), "{peers:?}");
        ensure!(!peers.contains(&kernel(&site, "core")?), "{peers:?}");
        site.release("w1", "module")?;
        let finished = wait_event(&run, "cluster_finished")?;
        assert_eq!(finished["exit"], "done", "{finished}");
        site.ends_with(&["2.0.0", "2.0.0", "2.0.0"])
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn r26_a_node_whose_roles_change_while_others_are_upgraded_is_not_touched() -> Result<()> {
        let site = Site::at_one(&[two()]).await?;
        let c1 = site.node("c1")?;
        let settings = String::from_utf8(c1.read("/etc/kato/kato.toml")?)?;
        let drifted = settings.replace("roles = [\"controller\"]", "roles = [\"controller\", \"router\"]");
        ensure!(drifted != settings, "{settings}");
        site.hold_at("w1", "module")?;
        let mut run = site.begin()?;
        site.wait_at("w1", "module")?;
        c1.put("/etc/kato/kato.toml", drifted.as_bytes(), 0o644)?;
        site.release("w1", "module")?;
        assert_eq!(wait_event(&run, "node_failed")?["node"], "c1");
        let finished = wait_event(&run, "cluster_finished")?;
        assert_eq!(finished["exit"], "partial", "{finished}");
        assert_eq!(run.ended(SOON)?.code(), Some(24), "{}", run.log());
        ensure!(run.log().contains("router"), "{}", run.log());
        for name in ["c1", "core"] {
            ensure!(site.upgrades_of(name)?.len() == 1, "{name} was touched");
        }
        site.ends_with(&["1.0.0", "1.0.0", "2.0.0"])?;

        c1.put("/etc/kato/kato.toml", settings.as_bytes(), 0o644)?;
        let done = site.upgrade(&[])?;
        assert_eq!(done.status.code(), Some(0), "{}", text(&done));
        site.ends_with(&["2.0.0", "2.0.0", "2.0.0"])
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn r56_killed_while_the_cache_is_filled_the_same_command_goes_on_with_what_is_there() -> Result<()>
    {
        let site = Site::at_one(&[two()]).await?;
        // The archive stands still in its middle.
        site.host.fail("app-2.0.0.tar.zst", Fault::Stall(1 << 20));
        let run = site.begin()?;
        wait::until("the archive asked for", SOON, || {
            (site.host.bytes() > 1 << 20).then_some(())
        })?;
        // SIGKILL.
        drop(run);
        site.host.heal();
        for name in ["core", "c1", "w1"] {
            ensure!(site.upgrades_of(name)?.len() == 1, "{name} was touched");
        }
        let done = site.upgrade(&[])?;
        assert_eq!(done.status.code(), Some(0), "{}", text(&done));
        // What was received before is not fetched again from its start.
        let requests = site.artifact_requests();
        ensure!(requests.values().all(|count| *count <= 2), "{requests:?}");
        site.ends_with(&["2.0.0", "2.0.0", "2.0.0"])
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn r53_a_cluster_with_a_sick_node_is_upgraded_when_an_operator_says_so() -> Result<()> {
        let site = Site::at_one(&[two()]).await?;
        site.append("w1", "/etc/kato/kato.toml", &verb("health"))?;
        site.node("w1")?.put("/var/platform/sick", b"", 0o644)?;
        // Said with the plan already, and nothing is begun.
        for words in [&["--plan"][..], &[]] {
            let refused = site.upgrade(words)?;
            assert_eq!(refused.status.code(), Some(20), "{}", text(&refused));
            assert!(text(&refused).contains("--tolerant"), "{}", text(&refused));
        }
        site.ends_with(&["1.0.0", "1.0.0", "1.0.0"])?;

        // Taken as it is, and well at the end: the upgrade was the cure.
        site.hold_at("w1", "module")?;
        let argv: Vec<&str> = crate::site::CLUSTER
            .iter()
            .chain(&["--tolerant", "--json"])
            .copied()
            .collect();
        let run = site.node("core")?.spawn(&argv)?;
        let started = wait_event(&run, "cluster_started")?;
        ensure!(
            started["plan"]["warnings"]
                .to_string()
                .contains("--tolerant was given"),
            "{started}"
        );
        site.wait_at("w1", "module")?;
        site.node("w1")?.ok(&["rm", "/var/platform/sick"])?;
        site.release("w1", "module")?;
        let finished = wait_event(&run, "cluster_finished")?;
        assert_eq!(finished["exit"], "done", "{finished}");
        site.ends_with(&["2.0.0", "2.0.0", "2.0.0"])
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn r63_one_node_is_asked_and_upgraded_by_its_name_from_core() -> Result<()> {
        let site = Site::at_one(&[two()]).await?;
        let core = site.node("core")?;
        let address = site.node("w1")?.address().to_string();
        let status = core.ok(&[KATO, "node", "upgrade", "--status", "--node", &address, "--json"])?;
        let status: serde_json::Value = serde_json::from_str(&status)?;
        assert_eq!(
            (&status["node"], &status["version"]),
            (&"w1".into(), &"1.0.0".into())
        );
        let words = |more: &[&'static str]| -> Vec<&'static str> {
            [KATO, "node", "upgrade", "--skip-confirmation"]
                .iter()
                .chain(more)
                .copied()
                .collect()
        };
        let plan = core.exec_within(SOON, &words(&["--plan", "--json", "-n", "w1"]), &[])?;
        assert_eq!(plan.status.code(), Some(0), "{}", text(&plan));
        let plan: serde_json::Value = serde_json::from_slice(&plan.stdout)?;
        assert_eq!(plan["batches"], serde_json::json!([["w1"]]));
        for (more, code, expected) in [
            (&["--node", "w9"][..], 2, "only core, c1, w1"),
            (&["--node", "w1", "--cluster"], 2, "cannot be used with"),
            (&["--node", "core"], 20, "Core is upgraded last"),
        ] {
            let refused = core.exec_within(SOON, &words(more), &[])?;
            assert_eq!(refused.status.code(), Some(code), "{more:?}: {}", text(&refused));
            assert!(text(&refused).contains(expected), "{more:?}: {}", text(&refused));
        }
        let elsewhere = site
            .node("c1")?
            .exec_within(SOON, &words(&["--node", "w1"]), &[])?;
        assert_eq!(elsewhere.status.code(), Some(20), "{}", text(&elsewhere));
        site.ends_with(&["1.0.0", "1.0.0", "1.0.0"])?;

        let done = core.exec_within(crate::site::PATIENCE, &words(&["--node", "w1"]), &[])?;
        assert_eq!(done.status.code(), Some(0), "{}", text(&done));
        let same = core.exec_within(SOON, &words(&["--node", "w1", "--update-kato"]), &[])?;
        assert_eq!(same.status.code(), Some(0), "{}", text(&same));
        site.ends_with(&["1.0.0", "1.0.0", "2.0.0"])
    }

    /// 2.0.0 with an overlay that lets no local change pass.
    fn strict(version: &str) -> TestRelease {
        let mut release = TestRelease::standard(version);
        let line = format!("version {version}\n");
        release.modules.push(TestModule::new(
            "strict",
            "policy = \"overlay\"\ndest = \"/s/strict\"\nconflict = \"fail\"",
            &[("one", &line)],
        ));
        release
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn c19_what_modules_would_refuse_on_any_node_is_shown_with_the_plan() -> Result<()> {
        let site = Site::at_one(&[strict("1.5.0"), strict("2.0.0")]).await?;
        let done = site.upgrade(&["--version", "1.5.0"])?;
        assert_eq!(done.status.code(), Some(0), "{}", text(&done));
        site.host.reset();
        let (c1, core) = (site.node("c1")?, site.node("core")?);
        c1.put("/s/strict/one", b"changed here\n", 0o644)?;
        core.ok(&["rm", "-rf", "/s/code/console"])?;
        core.ok(&["mkdir", "/s/code/console"])?;
        core.ok(&["mount", "-t", "tmpfs", "tmpfs", "/s/code/console"])?;
        let plan = site.upgrade(&["--plan"])?;
        assert_eq!(plan.status.code(), Some(20), "{}", text(&plan));
        let said = text(&plan);
        // The plan itself, and everything that is in its way.
        assert!(said.contains("Core, always last"), "{said}");
        assert!(said.contains("not ready to be upgraded: c1, core"), "{said}");
        let of_c1 = said
            .lines()
            .find(|line| line.contains("stand in the way of 2.0.0"))
            .context("no word about the file")?;
        assert!(
            of_c1.starts_with("c1: ") && of_c1.contains("/s/strict/one (changed here and in the release)"),
            "{said}"
        );
        assert!(
            said.contains("core: `/s/code/console` is a mount point"),
            "{said}"
        );
        assert!(site.artifact_requests().is_empty());
        site.ends_with(&["1.5.0", "1.5.0", "1.5.0"])
    }
}
