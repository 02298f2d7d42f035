//! Ten machines with every kind of role, through one upgrade from one cache; and what the next plan knows from it.

/// Needs root and namespaces.
mod as_root {
    use anyhow::{Context as _, Result};
    use integration_tests::releases::TestRelease;
    use serde_json::Value;

    use crate::site::{Machine, PATIENCE, Site, text};

    const TEN: [Machine; 10] = [
        ("core", &["primary"], None),
        ("b1", &[], None),
        ("c1", &["controller"], None),
        ("c2", &["controller"], None),
        ("d1", &["mysql"], None),
        ("r1", &["router"], None),
        ("r2", &["router"], None),
        ("w1", &["dea"], None),
        ("w2", &["dea"], None),
        ("w3", &["dea"], None),
    ];

    /// Workers, controllers, routers, what has only the base role, data services, Core.
    const ORDER: [&str; 10] = ["w1", "w2", "w3", "c1", "c2", "r1", "r2", "b1", "d1", "core"];

    const PAYLOAD: u64 = 2 << 20;

    fn plan(site: &Site, more: &[&str]) -> Result<Value> {
        let words: Vec<&str> = ["--plan", "--json"].iter().chain(more).copied().collect();
        let plan = site.upgrade(&words)?;
        assert_eq!(plan.status.code(), Some(0), "{}", text(&plan));
        Ok(serde_json::from_slice(&plan.stdout)?)
    }

    fn ids(plan: &Value) -> Vec<&str> {
        let nodes = plan["nodes"].as_array().into_iter().flatten();
        nodes.filter_map(|node| node["id"].as_str()).collect()
    }

    fn batches(plan: &Value) -> Vec<Vec<&str>> {
        let batches = plan["batches"].as_array().into_iter().flatten();
        batches
            .map(|batch| {
                let ids = batch.as_array().into_iter().flatten();
                ids.filter_map(Value::as_str).collect()
            })
            .collect()
    }

    /// Core is last, whatever is asked for; what is no role is refused with those that are.
    fn orders(site: &Site) -> Result<()> {
        let own = plan(site, &["--role-order", "primary,router"])?;
        assert_eq!(ids(&own)[..2], ["r1", "r2"]);
        assert_eq!(ids(&own).last(), Some(&"core"));
        // One at a time, also those that the list does not name: a database never goes together with a worker.
        assert_eq!(batches(&own).concat(), ids(&own));
        assert!(batches(&own).iter().all(|batch| batch.len() == 1), "{own}");
        let unordered = site.upgrade(&["--plan", "--role-order", "primary,router"])?;
        assert!(!text(&unordered).contains("together:"), "{}", text(&unordered));
        assert!(
            own["warnings"].to_string().contains("primary"),
            "{}",
            own["warnings"]
        );
        let unknown = site.upgrade(&["--plan", "--role-order", "dea,mars"])?;
        assert_eq!(unknown.status.code(), Some(2), "{}", text(&unknown));
        assert!(
            text(&unknown).contains("mars") && text(&unknown).contains("router"),
            "{}",
            text(&unknown)
        );
        Ok(())
    }

    /// How long it took, and what is at risk on whom.
    async fn the_next_plan_knows(site: &Site) -> Result<()> {
        site.repository
            .publish(&TestRelease::standard("3.0.0").with_payload(2 << 20))
            .await?;
        site.node("w2")?.put("/s/etc/app.conf", b"by hand\n", 0o644)?;
        let next = plan(site, &[])?;
        assert_eq!(next["target"], "3.0.0");
        let basis = next["estimate"]["basis"].to_string();
        assert!(
            basis.contains("measured when the cache was last filled"),
            "{basis}"
        );
        assert!(
            basis.contains("10 nodes in 10 batches, by what they took last time"),
            "{basis}"
        );
        assert!(next["estimate"]["seconds"].as_u64() > Some(0), "{basis}");
        for node in next["nodes"].as_array().into_iter().flatten() {
            let risk = &node["work"]["at_risk"];
            let expected = u64::from(node["id"] == "w2");
            assert_eq!(risk["count"], expected, "{node}");
        }
        Ok(())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn r24_r30_ten_machines_in_order_with_one_request_for_each_file() -> Result<()> {
        let site = Site::of(&TEN, &[TestRelease::standard("2.0.0").with_payload(2 << 20)]).await?;
        orders(&site)?;

        let planned = plan(&site, &[])?;
        assert_eq!(ids(&planned), ORDER);
        assert_eq!(batches(&planned), ORDER.map(|id| vec![id]));
        let bytes: u64 = planned["artifacts"]
            .as_array()
            .context("no artifacts")?
            .iter()
            .filter_map(|artifact| artifact["bytes"].as_u64())
            .sum();
        assert!((PAYLOAD..2 * PAYLOAD).contains(&bytes), "{planned}");
        assert_eq!(planned["estimate"], Value::Null, "nothing was ever timed");
        site.host.reset();

        let argv: Vec<&str> = crate::site::CLUSTER.iter().chain(&["--json"]).copied().collect();
        let done = site.node("core")?.exec_within(PATIENCE, &argv, &[])?;
        assert_eq!(done.status.code(), Some(0), "{}", text(&done));
        let lines: Vec<Value> = String::from_utf8(done.stdout)?
            .lines()
            .map(serde_json::from_str)
            .collect::<Result<_, _>>()?;
        let begun = lines.iter().filter(|line| line["event"] == "batch_started");
        let begun: Vec<Value> = begun.map(|line| line["nodes"].clone()).collect();
        assert_eq!(begun, ORDER.map(|id| serde_json::json!([id])));
        let finished = lines.iter().filter(|line| line["event"] == "node_finished");
        let finished: Vec<&str> = finished.filter_map(|line| line["node"].as_str()).collect();
        assert_eq!(finished, ORDER);
        site.ends_with(&["2.0.0"; 10])?;

        // Four modules; ten nodes; one request each. What the other nine did not fetch is told.
        let requests = site.artifact_requests();
        assert_eq!(requests.len(), 4, "{requests:?}");
        assert!(requests.values().all(|count| *count == 1), "{requests:?}");
        let traffic = &lines.last().context("no last line")?["traffic"];
        let saved = traffic["saved"].as_u64().with_context(|| format!("{traffic}"))?;
        assert!((9 * PAYLOAD..10 * PAYLOAD).contains(&saved), "{traffic}");

        the_next_plan_knows(&site).await
    }
}
