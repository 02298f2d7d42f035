//! Core with a key that is nowhere but in an agent, and nodes that are reached through others: both by the system's ssh alone.

/// Needs root and namespaces.
mod as_root {
    use std::{process::Output, time::Duration};

    use anyhow::Result;
    use integration_tests::{lab::Background, releases::TestRelease, wait};

    use crate::site::{CLUSTER, KATO, PATIENCE, Site, text};

    /// How long an agent may take to listen.
    const SOON: Duration = Duration::from_secs(30);
    const AGENT: &str = "/run/agent";
    const KEY: &str = "/root/.ssh/id_ed25519";

    /// Core's key in an agent, and in no file any more. The agent ends with the answer.
    fn only_in_an_agent(site: &Site) -> Result<Background> {
        let core = site.node("core")?;
        let agent = core.spawn(&["ssh-agent", "-D", "-a", AGENT])?;
        wait::until("the agent", SOON, || {
            core.exists(AGENT).ok().filter(|there| *there)
        })?;
        core.ok(&["env", &format!("SSH_AUTH_SOCK={AGENT}"), "ssh-add", "-q", KEY])?;
        core.ok(&["rm", KEY])?;
        Ok(agent)
    }

    /// The upgrade of the cluster in a session that knows the agent; nobody is at a terminal.
    fn upgrade(site: &Site, more: &[&str]) -> Result<Output> {
        let agent = format!("SSH_AUTH_SOCK={AGENT}");
        let session = ["env", agent.as_str()];
        let argv: Vec<&str> = session.iter().chain(&CLUSTER).chain(more).copied().collect();
        site.node("core")?.exec_within(PATIENCE, &argv, &[])
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn r18_a_key_that_only_an_agent_has_is_enough_where_nobody_is_at_a_terminal() -> Result<()> {
        let site = Site::at_one(&[TestRelease::standard("2.0.0").with_payload(1 << 20)]).await?;
        let _agent = only_in_an_agent(&site)?;
        // In a session without the agent there is no key, and nobody is asked for a password.
        let refused = site.upgrade(&["--plan"])?;
        assert_eq!(refused.status.code(), Some(20), "{}", text(&refused));
        let said = text(&refused);
        assert!(
            said.contains("not ready to be upgraded: c1, w1") && said.contains("Permission denied"),
            "{said}"
        );

        let planned = upgrade(&site, &["--plan"])?;
        assert_eq!(planned.status.code(), Some(0), "{}", text(&planned));
        let done = upgrade(&site, &[])?;
        assert_eq!(done.status.code(), Some(0), "{}", text(&done));
        site.ends_behind_an_agent(AGENT, &["2.0.0", "2.0.0", "2.0.0"])
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn r18_a_node_behind_a_jump_host_is_reached_by_ssh_config_with_the_same_agent() -> Result<()> {
        let site = Site::at_one(&[TestRelease::standard("2.0.0").with_payload(1 << 20)]).await?;
        let (c1, w1) = (site.node("c1")?, site.node("w1")?);
        let (jump, behind) = (c1.address(), w1.address());
        // w1 lets in who comes from c1, and nobody else.
        let keys = "/home/stackato/.ssh/authorized_keys";
        let restricted = format!("s/^ssh-/from=\"{jump}\" ssh-/");
        w1.ok(&["sed", "-i", &restricted, keys])?;
        let _agent = only_in_an_agent(&site)?;
        let refused = upgrade(&site, &["--plan"])?;
        assert_eq!(refused.status.code(), Some(20), "{}", text(&refused));
        assert!(
            text(&refused).contains("not ready to be upgraded: w1"),
            "{}",
            text(&refused)
        );

        let config = format!("Host {behind}\n    ProxyJump stackato@{jump}\n");
        let core = site.node("core")?;
        core.put("/etc/kato/ssh_config", config.as_bytes(), 0o644)?;
        core.ok(&[
            "sed",
            "-i",
            "s|^\\[ssh\\]|[ssh]\\nconfig = \"/etc/kato/ssh_config\"|",
            "/etc/kato/cluster.toml",
        ])?;
        let planned = upgrade(&site, &["--plan"])?;
        assert_eq!(planned.status.code(), Some(0), "{}", text(&planned));
        let done = upgrade(&site, &[])?;
        assert_eq!(done.status.code(), Some(0), "{}", text(&done));
        site.ends_behind_an_agent(AGENT, &["2.0.0", "2.0.0", "2.0.0"])?;

        // A machine in between that nobody knows is refused, and its key is asked about nowhere.
        core.ok(&["sed", "-i", &format!("/{jump}/d"), "/etc/ssh/ssh_known_hosts"])?;
        let refused = core.exec_within(
            PATIENCE,
            &["env", &format!("SSH_AUTH_SOCK={AGENT}"), KATO, "node", "list"],
            &[],
        )?;
        let said = text(&refused);
        assert!(
            said.contains("no answer") && said.contains("w1: no connection"),
            "{said}"
        );
        Ok(())
    }
}
