//! Enough workers stay in service whatever an operator, a dead machine or a pause does in between; and what a pause and an abort mean.

/// Needs root and namespaces.
mod as_root {
    use std::time::Duration;

    use anyhow::Result;
    use integration_tests::releases::TestRelease;
    use serde_json::Value;

    use crate::site::{KATO, Machine, Site, text, wait_event, with_gates};

    const SOON: Duration = Duration::from_secs(60);

    const FOUR: [Machine; 4] = [
        ("core", &["primary"], None),
        ("w1", &["dea"], None),
        ("w2", &["dea"], None),
        ("w3", &["dea"], None),
    ];

    async fn site() -> Result<Site> {
        let two = with_gates(TestRelease::standard("2.0.0").with_payload(1 << 20), &["dea"]);
        let site = Site::of(&FOUR, &[two]).await?;
        site.append(
            "core",
            "/etc/kato/cluster.toml",
            "[rollout.role.dea]\nmin_available = 2\n",
        )?;
        Ok(site)
    }

    /// `kato` with `words` on Core, which ends with `code` and says `expected`.
    fn says(site: &Site, words: &[&str], code: i32, expected: &str) -> Result<()> {
        let argv: Vec<&str> = [KATO].iter().chain(words).copied().collect();
        let said = site.node("core")?.exec(&argv)?;
        assert_eq!(said.status.code(), Some(code), "{words:?}: {}", text(&said));
        assert!(text(&said).contains(expected), "{words:?}: {}", text(&said));
        Ok(())
    }

    /// One of three is away, two must stay: nobody else goes, at the preflight.
    fn refused_before(site: &Site) -> Result<()> {
        let core = site.node("core")?;
        core.ok(&[KATO, "node", "retire", "--node", "w1"])?;
        let refused = site.upgrade(&["--only", "w2"])?;
        assert_eq!(refused.status.code(), Some(20), "{}", text(&refused));
        let expected = "w2 cannot go out of service: 2 nodes with the role dea in service, and 2 must stay (w1 was taken out of service by hand)";
        assert!(text(&refused).contains(expected), "{}", text(&refused));
        core.ok(&[KATO, "node", "rejoin", "--node", "w1"])?;

        site.node("w3")?.cut()?;
        let refused = site.upgrade(&["--exclude", "w3"])?;
        assert_eq!(refused.status.code(), Some(20), "{}", text(&refused));
        assert!(
            text(&refused).contains("2 must stay (w3 does not answer)"),
            "{}",
            text(&refused)
        );
        assert!(text(&refused).contains("min_available"), "{}", text(&refused));
        site.node("w3")?.heal()?;
        site.ends_with(&["1.0.0"; 4])
    }

    /// w3 goes away in a pause, when the plan is made long since.
    fn looked_at_again_after_a_pause(site: &Site) -> Result<()> {
        site.hold_at("w1", "module")?;
        let mut run = site.begin()?;
        site.wait_at("w1", "module")?;
        says(
            site,
            &["cluster", "pause", "--reason", "lunch time"],
            0,
            "is paused",
        )?;
        says(
            site,
            &["status"],
            0,
            "(lunch time); `kato cluster resume` lets it go on",
        )?;
        let status = site.node("core")?.ok(&[KATO, "status", "--json"])?;
        let status: Value = serde_json::from_str(&status)?;
        assert_eq!(
            (&status["wish"]["wish"], &status["wish"]["reason"]),
            (&"pause".into(), &"lunch time".into())
        );
        site.release("w1", "module")?;
        wait_event(&run, "cluster_paused")?;
        site.node("core")?.ok(&[KATO, "node", "retire", "--node", "w3"])?;
        says(site, &["cluster", "resume"], 0, "may go on")?;
        let finished = wait_event(&run, "cluster_finished")?;
        assert_eq!(finished["exit"], "partial", "{finished}");
        assert_eq!(run.ended(SOON)?.code(), Some(24), "{}", run.log());
        assert!(
            run.log()
                .contains("w2 cannot go out of service: 2 nodes with the role dea"),
            "{}",
            run.log()
        );
        // w3 was out already: its upgrade took nobody's place, and left it to whoever retired it.
        assert_eq!(site.versions()?, ["1.0.0", "2.0.0", "1.0.0", "2.0.0"]);
        assert_eq!(site.status("w3")?["retired_by"], "hand");
        assert_eq!(site.upgrades_of("w2")?.len(), 1, "w2 was touched");
        site.node("core")?.ok(&[KATO, "node", "rejoin", "--node", "w3"])?;
        Ok(())
    }

    /// What is at work ends, nothing is begun behind it, and nobody takes that back.
    fn given_up_for_good(site: &Site) -> Result<()> {
        site.hold_at("w2", "module")?;
        let mut run = site.begin()?;
        site.wait_at("w2", "module")?;
        says(
            site,
            &["cluster", "abort", "--reason", "wrong day"],
            0,
            "is given up",
        )?;
        site.release("w2", "module")?;
        assert_eq!(wait_event(&run, "cluster_finished")?["exit"], "partial");
        assert_eq!(run.ended(SOON)?.code(), Some(24), "{}", run.log());
        assert_eq!(site.versions()?, ["1.0.0", "2.0.0", "2.0.0", "2.0.0"]);
        says(site, &["status"], 0, "given up since")?;
        says(site, &["cluster", "resume"], 20, "that is final")?;
        says(site, &["cluster", "pause"], 20, "that is final")?;

        let done = site.upgrade(&[])?;
        assert_eq!(done.status.code(), Some(0), "{}", text(&done));
        says(site, &["cluster", "pause"], 20, "is complete")?;
        says(site, &["status"], 0, "4 of 4 nodes are there; complete")
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn c07_c24_who_is_in_service_is_looked_at_before_each_batch_and_pause_and_abort_are_kept()
    -> Result<()> {
        let site = site().await?;
        refused_before(&site)?;
        looked_at_again_after_a_pause(&site)?;
        given_up_for_good(&site)?;
        site.ends_with(&["2.0.0"; 4])
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn c10_what_was_asked_for_by_name_and_is_not_done_is_refused() -> Result<()> {
        let site = site().await?;
        for (words, expected) in [
            (
                &["--only=core"][..],
                "core: it was asked for by `--only` and would be left out: w1, w2, w3 stay behind, and Core is upgraded last",
            ),
            (&["--only=w1", "--exclude=w1"][..], "`--exclude` names it as well"),
        ] {
            let refused = site.upgrade(words)?;
            assert_eq!(refused.status.code(), Some(20), "{}", text(&refused));
            assert!(text(&refused).contains(expected), "{}", text(&refused));
        }
        site.ends_with(&["1.0.0"; 4])?;

        // A greeting of the shell is no answer and in nobody's way.
        site.node("w2")?
            .put("/home/stackato/.bashrc", b"echo hello from bashrc\n", 0o644)?;
        site.node("w2")?
            .ok(&["usermod", "--shell", "/bin/bash", "stackato"])?;
        site.hold_at("w1", "module")?;
        let run = site.begin()?;
        site.wait_at("w1", "module")?;
        drop(run);
        // An entry that is taken out in the middle of a plan is not forgotten.
        let core = site.node("core")?;
        let inventory = core.read("/etc/kato/cluster.toml")?;
        let whole = String::from_utf8(inventory.clone())?;
        let without = whole.replace(&entry(&whole, "w3"), "");
        core.put("/etc/kato/cluster.toml", without.as_bytes(), 0o644)?;
        let refused = site.upgrade(&[])?;
        assert_eq!(refused.status.code(), Some(20), "{}", text(&refused));
        assert!(
            text(&refused).contains("is not done and has w3, which cluster.toml does not have any more"),
            "{}",
            text(&refused)
        );
        says(
            &site,
            &["status"],
            0,
            "the plan has w3 as well, and cluster.toml does not",
        )?;
        core.put("/etc/kato/cluster.toml", &inventory, 0o644)?;
        site.release("w1", "module")?;
        let done = site.upgrade(&[])?;
        assert_eq!(done.status.code(), Some(0), "{}", text(&done));
        site.ends_with(&["2.0.0"; 4])
    }

    /// The lines of one node in the inventory.
    fn entry(inventory: &str, id: &str) -> String {
        let head = format!("[[node]]\nid = \"{id}\"\n");
        let rest = inventory.split_once(&head).map_or("", |(_, rest)| rest);
        let lines: String = rest.split_inclusive('\n').take(2).collect();
        format!("{head}{lines}")
    }
}
