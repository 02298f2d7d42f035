//! What an operator on Core reads: status as it changes, why a node is not upgraded, and the report.

/// Needs root and namespaces.
mod as_root {
    use anyhow::Result;
    use integration_tests::releases::TestRelease;
    use serde_json::Value;

    use crate::site::{KATO, Site, text, wait_event};

    fn explained(site: &Site, node: &str) -> Result<Value> {
        let said = site.node("core")?.ok(&[KATO, "explain", node, "--json"])?;
        Ok(serde_json::from_str::<Value>(&said)?["explanation"].clone())
    }

    /// What somebody needs who was not there, of every node, and no secret.
    fn the_report_tells(site: &Site) -> Result<()> {
        let core = site.node("core")?;
        let unpacked = "mkdir /tmp/report && zstd -dqc /tmp/report.tar.zst | tar -x -C /tmp/report";
        core.ok(&["sh", "-c", unpacked])?;
        let read = |name: &str| -> Result<Vec<Value>> {
            let text = String::from_utf8(core.read(&format!("/tmp/report/{name}"))?)?;
            Ok(text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
        };
        let head = read("report.json")?;
        assert_eq!(
            (&head[0]["schema"], &head[0]["cluster"]),
            (&1.into(), &"lab".into())
        );
        for name in ["core", "c1", "w1"] {
            let events = read(&format!("nodes/{name}/events.jsonl"))?;
            assert!(
                events.iter().any(|event| event["event"] == "run_finished"),
                "{name}: {events:?}"
            );
            let audit = read(&format!("nodes/{name}/audit.jsonl"))?;
            assert!(
                !audit.is_empty() && audit[0]["error"].is_null(),
                "{name}: {audit:?}"
            );
        }
        let worker = read("nodes/w1/events.jsonl")?;
        let last = worker.iter().rfind(|event| event["event"] == "step_started");
        assert_eq!(last.map(|event| &event["step"]), Some(&"retire".into()));
        // The status is a document of its own, over several lines.
        let status: Value = serde_json::from_slice(&core.read("/tmp/report/status.json")?)?;
        assert_eq!(
            status["nodes"].as_array().map(Vec::len),
            Some(3),
            "who is in the cluster: {status}"
        );
        assert_eq!(status["lease"]["standing"]["is"], "at-work", "{status}");
        let mut files: Vec<String> = core
            .ok(&["find", "/tmp/report", "-type", "f", "-printf", "%P\\n"])?
            .lines()
            .map(String::from)
            .collect();
        files.sort();
        assert_eq!(
            files,
            [
                "nodes/c1/audit.jsonl",
                "nodes/c1/events.jsonl",
                "nodes/core/audit.jsonl",
                "nodes/core/events.jsonl",
                "nodes/w1/audit.jsonl",
                "nodes/w1/events.jsonl",
                "report.json",
                "status.json"
            ]
        );
        Ok(())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn c12_who_watches_reads_every_change_and_why_a_node_waits() -> Result<()> {
        let site = Site::at_one(&[TestRelease::standard("2.0.0").with_payload(2 << 20)]).await?;
        let core = site.node("core")?;
        assert_eq!(explained(&site, "w1")?["gate"], "no-plan");
        site.hold_worker()?;
        let mut watch = core.spawn(&[KATO, "status", "--watch"])?;
        let run = site.begin()?;
        site.wait_held()?;

        let worker = explained(&site, "w1")?;
        assert_eq!(worker["gate"], "own-run", "{worker}");
        assert!(
            worker["why"].as_str().unwrap_or_default().contains("retire"),
            "{worker}"
        );
        let last = explained(&site, "core")?;
        assert_eq!(last["gate"], "order", "{last}");
        assert!(last["why"].as_str().unwrap_or_default().contains("w1"), "{last}");
        let status: Value = serde_json::from_str(&core.ok(&[KATO, "status", "--json"])?)?;
        assert_eq!(status["lease"]["standing"]["is"], "at-work", "{status}");

        // A report can be made in the middle, and holds every node.
        let report = core.ok(&[KATO, "report", "--output", "/tmp/report.tar.zst"])?;
        assert_eq!(report.trim(), "/tmp/report.tar.zst");
        core.ok(&["sh", "-c", "test $(stat -c %a /tmp/report.tar.zst) = 600"])?;

        the_report_tells(&site)?;
        site.release_worker()?;
        assert_eq!(wait_event(&run, "cluster_finished")?["exit"], "done");
        // It ends with the work, and not before.
        let ended = watch.ended(std::time::Duration::from_secs(60))?;
        assert_eq!(ended.code(), Some(0), "{}", watch.log());
        let mut lines = Vec::new();
        while let Ok(line) = watch.line(std::time::Duration::from_millis(100)) {
            lines.push(line);
        }
        let said = lines.join("\n");
        assert!(said.contains("w1: 1.0.0 upgrading to 2.0.0 at retire"), "{said}");
        assert!(said.contains("w1: 2.0.0 idle"), "{said}");
        assert!(!said.contains('\u{1b}'), "{said}");
        assert_eq!(explained(&site, "w1")?["gate"], "none");

        let version = core.ok(&[KATO, "node", "version", "--node", "w1"])?;
        assert_eq!(version.trim(), "2.0.0");
        let unknown = core.exec(&[KATO, "explain", "w9"])?;
        assert_eq!(unknown.status.code(), Some(2), "{}", text(&unknown));
        Ok(())
    }
}
