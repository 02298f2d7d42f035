//! What was done to a node is on record, and the record cannot be changed unseen.

use std::{fs, time::Duration};

use anyhow::Result;
use integration_tests::{command, node::TestNode};
use kato_shared::durable;
use serde_json::Value;

use crate::setup::Site;

const LONG: Duration = Duration::from_secs(60);

/// The records, oldest first.
fn records(node: &TestNode) -> Result<Vec<Value>> {
    let output = command::run(node.kato(&["audit", "show", "--json"])?, LONG, &[])?;
    let text = String::from_utf8(output.stdout)?;
    Ok(text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
}

/// The exit code of `kato audit verify <arguments>`, and what it said.
fn verify(node: &TestNode, arguments: &[&str]) -> Result<(Option<i32>, String)> {
    let mut kato = node.kato(&["audit", "verify"])?;
    kato.args(arguments);
    let output = command::run(kato, LONG, &[])?;
    Ok((output.status.code(), String::from_utf8(output.stdout)?))
}

#[tokio::test(flavor = "multi_thread")]
async fn r36_forced_runs_are_recorded_with_who_and_how_also_those_that_were_refused() -> Result<()> {
    let site = Site::at_one().await?;
    site.node.upgrade_ends(0, &["--version", "1.0.0", "--force"])?;
    site.node.upgrade_ends(20, &["--version", "7.0.0", "--force"])?;
    let records = records(&site.node)?;
    let seen: Vec<_> = records
        .iter()
        .map(|record| {
            (
                record["about"].as_str().unwrap_or_default(),
                record["outcome"].as_str().unwrap_or_default(),
                record["forced"] == true,
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            ("to 1.0.0", "begun", false),
            ("to 1.0.0", "done", false),
            ("1.0.0 to 1.0.0", "begun", true),
            ("to 1.0.0", "done", true),
            ("to ", "failed", true),
        ]
    );
    let forced = &records[2];
    assert_eq!(
        (&forced["node"], &forced["what"]),
        (&"n1".into(), &"upgrade".into())
    );
    assert_eq!(forced["run"], records[3]["run"]);
    assert_eq!(
        forced["who"]["uid"].as_u64(),
        Some(u64::from(rustix::process::getuid().as_raw()))
    );
    let line: Vec<_> = forced["command"].as_array().into_iter().flatten().collect();
    assert!(line.contains(&&"--force".into()), "{line:?}");
    assert_eq!(records[4]["exit"], "preflight");
    // Looking, and being at the newest release, change nothing and are no deeds.
    command::run(site.node.kato(&["node", "upgrade", "--plan"])?, LONG, &[])?;
    site.node.upgrade_ends(0, &["--version", "1.0.0"])?;
    assert_eq!(self::records(&site.node)?.len(), records.len());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_whole_until_somebody_changes_it() -> Result<()> {
    let site = Site::at_one().await?;
    let (code, said) = verify(&site.node, &[])?;
    assert_eq!(code, Some(0), "{said}");
    let last = said.trim().rsplit(' ').next().unwrap_or_default().to_owned();
    assert_eq!(verify(&site.node, &["--expect", &last])?.0, Some(0));
    site.node.upgrade_ends(0, &[])?;
    // What a notification carried away is still there after more was written.
    assert_eq!(verify(&site.node, &["--expect", &last])?.0, Some(0));

    let path = site.node.state("audit/audit.jsonl");
    let whole = fs::read_to_string(&path)?;
    durable::write(
        &path,
        whole.replacen("\"uid\":", "\"uid\":1", 1).as_bytes(),
        0o644,
    )?;
    let (code, said) = verify(&site.node, &[])?;
    assert_eq!(code, Some(21));
    assert!(said.contains("line 2: the line before was changed"), "{said}");
    let (_, said) = verify(&site.node, &["--json"])?;
    let report: Value = serde_json::from_str(&said)?;
    assert_eq!(
        (&report["schema"], &report["findings"][0]["problem"]),
        (&1.into(), &"broken".into())
    );

    let shorter: String = whole.split_inclusive('\n').take(3).collect();
    durable::write(&path, shorter.as_bytes(), 0o644)?;
    let (code, said) = verify(&site.node, &[])?;
    assert_eq!(code, Some(21));
    assert!(said.contains("record 4 with sha256:"), "{said}");
    // A log that was damaged does not keep the node from being upgraded, and is not mended by it.
    site.node.upgrade_ends(0, &["--version", "2.0.0", "--force"])?;
    assert!(verify(&site.node, &[])?.1.contains("record 4 with sha256:"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_cannot_be_recorded_does_not_begin() -> Result<()> {
    let site = Site::at_one().await?;
    let before = site.node.product()?;
    fs::remove_dir_all(site.node.state("audit"))?;
    durable::write(&site.node.state("audit"), b"in the way", 0o644)?;
    let said = site.node.upgrade_ends(20, &[])?;
    assert!(
        said.contains("audit") && said.contains("nothing was changed"),
        "{said}"
    );
    assert_eq!(site.node.product()?, before);
    Ok(())
}
