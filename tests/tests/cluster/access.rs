//! How Core gets at nodes: sudo by a narrow rule, passwords where there is none, and nothing at all asked where nobody is.

/// Needs root and namespaces.
mod as_root {
    use std::time::Duration;

    use anyhow::Result;
    use integration_tests::{lab::Background, releases::TestRelease};

    use crate::site::{CLUSTER, KATO, PATIENCE, Site, text, with_gates};

    /// How long a search through a machine may take.
    const SOON: Duration = Duration::from_secs(60);

    /// Any command, with a password.
    const WITH_PASSWORD: &str = "stackato ALL = (root) ALL\n";

    /// The node's own settings file, and one that a hostile user wrote.
    const OWN: &str = "/etc/kato/kato.toml";
    const OTHER: &str = "/tmp/other.toml";

    const SUDOERS: &str = "/etc/sudoers.d/kato";

    /// `kato node list` on Core at a terminal where somebody types `typed`.
    fn list_at_terminal(site: &Site, typed: &str) -> Result<std::process::Output> {
        let line = format!("printf '{typed}' | script -qec '{KATO} node list' /dev/null");
        site.node("core")?.exec(&["sh", "-c", &line])
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn r17_the_narrow_rule_lets_core_do_its_work_and_nothing_else() -> Result<()> {
        let site = Site::at_one(&[]).await?;
        let w1 = site.node("w1")?;
        w1.ok(&["visudo", "-cf", SUDOERS])?;
        let by_sudo = |words: &[&str]| {
            let mut argv = vec!["runuser", "-u", "stackato", "--", "sudo", "-n"];
            argv.extend(words);
            w1.exec(&argv)
        };
        for allowed in [
            &["node", "upgrade", "--status", "--json"][..],
            &["--fence", "7", "node", "upgrade", "--status"],
            &["node", "events", "--after", "0"],
            &["patch", "status", "--local", "--json"],
        ] {
            let words: Vec<&str> = [KATO, "--config", OWN].iter().chain(allowed).copied().collect();
            let output = by_sudo(&words)?;
            assert_eq!(output.status.code(), Some(0), "{words:?}: {}", text(&output));
        }
        for refused in [
            &["id"][..],
            &[KATO, "node", "upgrade", "--status"],
            &[KATO, "--config", OTHER, "node", "upgrade", "--status"],
            &[
                KATO, "--config", OWN, "node", "upgrade", "--status", "--config", OTHER,
            ],
            &[
                KATO,
                "--config",
                OWN,
                "node",
                "upgrade",
                "--status",
                "--config=/tmp/other.toml",
            ],
            &[
                KATO,
                "--config",
                OWN,
                "node",
                "upgrade",
                "--status --config /tmp/other.toml",
            ],
            &[KATO, "--config", OWN, "node", "restore"],
            &[KATO, "--config", OWN, "lock", "break", "--reason", "x"],
        ] {
            let output = by_sudo(refused)?;
            assert_eq!(output.status.code(), Some(1), "{refused:?}: {}", text(&output));
            assert!(text(&output).contains("sudo:"), "{refused:?}: {}", text(&output));
        }
        Ok(())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn r17_passwords_are_asked_for_once_and_where_nobody_is_nobody_is_asked() -> Result<()> {
        let site = Site::at_one(&[]).await?;
        for name in ["c1", "w1"] {
            let node = site.node(name)?;
            node.put(SUDOERS, WITH_PASSWORD.as_bytes(), 0o440)?;
            node.ok(&["sh", "-c", "echo stackato:sesame | chpasswd"])?;
        }
        // No key either: ssh asks as well.
        site.node("w1")?
            .ok(&["rm", "/home/stackato/.ssh/authorized_keys"])?;

        // Without a terminal: findings, and nothing waits for an answer.
        let refused = site.upgrade(&[])?;
        assert_eq!(refused.status.code(), Some(20), "{}", text(&refused));
        let said = text(&refused);
        assert!(said.contains("not ready to be upgraded: c1, w1"), "{said}");
        assert!(
            said.contains("NOPASSWD") && said.contains("Permission denied"),
            "{said}"
        );

        // With one: sudo on c1, ssh to w1, sudo on w1; each once.
        let listed = list_at_terminal(&site, "sesame\\nsesame\\nsesame\\n")?;
        let said = text(&listed);
        assert_eq!(listed.status.code(), Some(0), "{said}");
        assert_eq!(said.matches("password for sudo on ").count(), 2, "{said}");
        assert_eq!(said.matches("'s password: ").count(), 1, "{said}");
        assert_eq!(said.matches("1.0.0").count(), 3, "{said}");

        // A wrong one is found out at once, and asked for again.
        site.node("w1")?
            .ok(&["sh", "-c", "echo stackato:sesame | chpasswd"])?;
        let listed = list_at_terminal(&site, "sesame\\nguess\\nsesame\\nsesame\\nsesame\\n")?;
        let said = text(&listed);
        assert_eq!(said.matches("1.0.0").count(), 3, "{said}");
        assert!(
            said.contains("does not take this password") || said.matches("'s password: ").count() == 2,
            "{said}"
        );
        Ok(())
    }

    /// Nothing else contains it.
    const PASSWORD: &str = "open-sesame-4711";

    /// Where the files and programs of `node` have the password; its own hashes are not it.
    fn places_of_the_password(site: &Site, node: &str) -> Result<String> {
        let search = "grep -alsF -f - /proc/[0-9]*/cmdline /proc/[0-9]*/environ";
        // What the machine below has in these two shows through; only what was written since belongs to the node.
        let files = "grep -alsrF -f - /var/stackato /var/log /etc/kato /home/stackato /root/.ssh /run \
                     $(find /root /tmp -maxdepth 1 -type f -newer /etc/kato/kato.toml)";
        let mut found = String::new();
        for line in [search, files] {
            let output = site.node(node)?.exec_within(
                SOON,
                &["sh", "-c", line],
                format!("{PASSWORD}\n").as_bytes(),
            )?;
            found.push_str(&String::from_utf8_lossy(&output.stdout));
        }
        Ok(found)
    }

    /// The upgrade of the cluster on Core at a terminal, where `typed` was typed before it asks; what it left unread is printed behind it.
    fn upgrade_at_terminal(site: &Site, typed: &str) -> Result<Background> {
        let core = site.node("core")?;
        core.put("/root/typed", typed.as_bytes(), 0o600)?;
        let upgrade = CLUSTER.join(" ");
        let script = format!("{upgrade}; code=$?; read -r left; echo \"left: $left\"; exit $code");
        core.put("/root/session.sh", script.as_bytes(), 0o755)?;
        core.spawn(&[
            "sh",
            "-c",
            "exec script -qec 'sh /root/session.sh' /dev/null </root/typed",
        ])
    }

    /// Everything that it printed, once it ended well.
    fn ended_well(mut run: Background) -> Result<String> {
        let ended = run.ended(PATIENCE)?;
        let mut said = String::new();
        while let Ok(line) = run.line(Duration::from_millis(200)) {
            said.push_str(&line);
            said.push('\n');
        }
        assert_eq!(ended.code(), Some(0), "{said}");
        Ok(said)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn r18_r20_a_whole_upgrade_by_passwords_shows_them_to_nobody_and_with_rules_and_keys_nothing_is_read()
    -> Result<()> {
        let two = with_gates(TestRelease::standard("2.0.0").with_payload(1 << 20), &["dea"]);
        let three = TestRelease::standard("3.0.0").with_payload(1 << 20);
        let site = Site::at_one(&[two]).await?;
        let (c1, w1) = (site.node("c1")?, site.node("w1")?);
        for node in [&c1, &w1] {
            node.put(SUDOERS, WITH_PASSWORD.as_bytes(), 0o440)?;
            node.ok(&["sh", "-c", &format!("echo stackato:{PASSWORD} | chpasswd")])?;
        }
        w1.ok(&[
            "mv",
            "/home/stackato/.ssh/authorized_keys",
            "/home/stackato/.ssh/away",
        ])?;

        site.hold_at("w1", "module")?;
        let run = upgrade_at_terminal(
            &site,
            &format!("{PASSWORD}\n{PASSWORD}\n{PASSWORD}\nnobody reads this\n"),
        )?;
        site.wait_at("w1", "module")?;
        for name in ["c1", "w1"] {
            assert_eq!(places_of_the_password(&site, name)?, "", "{name}");
        }
        // The search does find what is there: what the operator is about to type.
        assert_eq!(places_of_the_password(&site, "core")?, "/root/typed\n");
        site.release("w1", "module")?;
        let said = ended_well(run)?;
        // Hours later nobody is asked once more.
        assert_eq!(said.matches("password for sudo on ").count(), 2, "{said}");
        assert_eq!(said.matches("'s password: ").count(), 1, "{said}");
        assert!(said.contains("left: nobody reads this"), "{said}");
        assert_eq!(places_of_the_password(&site, "core")?, "/root/typed\n");
        assert_eq!(site.versions()?, ["2.0.0", "2.0.0", "2.0.0"]);

        // With keys and the rule everywhere a terminal is there and not read.
        for node in [&c1, &w1] {
            node.ok(&["sh", "-c", &format!("{KATO} print-sudoers >{SUDOERS}")])?;
        }
        w1.ok(&[
            "mv",
            "/home/stackato/.ssh/away",
            "/home/stackato/.ssh/authorized_keys",
        ])?;
        site.repository.publish(&three).await?;
        let said = ended_well(upgrade_at_terminal(&site, "nobody reads this\n")?)?;
        assert!(
            !said.contains("password for ") && !said.contains("'s password"),
            "{said}"
        );
        assert!(said.contains("left: nobody reads this"), "{said}");
        site.ends_with(&["3.0.0", "3.0.0", "3.0.0"])
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn r17_one_password_does_for_all_nodes_on_request() -> Result<()> {
        let site = Site::at_one(&[]).await?;
        for name in ["c1", "w1"] {
            let node = site.node(name)?;
            node.put(SUDOERS, WITH_PASSWORD.as_bytes(), 0o440)?;
            node.ok(&["sh", "-c", "echo stackato:sesame | chpasswd"])?;
        }
        site.node("core")?.ok(&[
            "sed",
            "-i",
            "s/^\\[ssh\\]/[ssh]\\none_password = true/",
            "/etc/kato/cluster.toml",
        ])?;
        let listed = list_at_terminal(&site, "sesame\\n")?;
        let said = text(&listed);
        assert_eq!(said.matches("password for sudo on ").count(), 1, "{said}");
        assert_eq!(said.matches("1.0.0").count(), 3, "{said}");
        Ok(())
    }
}
