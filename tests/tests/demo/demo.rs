//! The demonstration as a person runs it.

use std::{fs, path::Path, process::Stdio};

use anyhow::{Context, Result, ensure};
use integration_tests::{binaries, command, wait};
use kato_upgrader::prepare::process;
use rustix::process::{Pid, Signal, kill_process};

use super::{DEADLINE, document};

/// Nothing of a demonstration in `dir` is left: no file and no process.
fn assert_nothing_left(dir: &Path) -> Result<()> {
    let files: Vec<_> = fs::read_dir(dir)?.flatten().map(|entry| entry.path()).collect();
    ensure!(files.is_empty(), "left behind: {files:?}");
    let processes = process::others()?;
    let left: Vec<_> = processes.iter().filter(|running| running.names(dir)).collect();
    ensure!(left.is_empty(), "left running: {left:?}");
    Ok(())
}

/// The bytes of those `artifacts` that have such a name.
fn bytes_of(artifacts: &[serde_json::Value], is_meant: impl Fn(&str) -> bool) -> u64 {
    let meant = artifacts
        .iter()
        .filter(|artifact| artifact["name"].as_str().is_some_and(&is_meant));
    meant.filter_map(|artifact| artifact["bytes"].as_u64()).sum()
}

#[test]
fn every_file_crosses_the_wan_once_core_is_last_and_nothing_is_left() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut kato = command::new(binaries::built("kato")?);
    kato.args(["demo", "--json", "--dir"]).arg(dir.path());
    // A site's proxy must not decide what the demonstration shows.
    kato.env("http_proxy", "http://127.0.0.1:9/")
        .env("HTTP_PROXY", "http://127.0.0.1:9/");
    let shown = document(&command::run(kato, DEADLINE, &[])?)?;
    assert_nothing_left(dir.path())?;

    assert_eq!(shown["schema"], 1, "{shown:#}");
    assert_eq!(shown["ok"], true, "{shown:#}");
    let order: Vec<_> = shown["order"].as_array().context("order")?.iter().collect();
    assert_eq!(order.len(), 3);
    assert_eq!(order.last().copied(), Some(&shown["core"]));
    let nodes = shown["nodes"].as_array().context("nodes")?;
    assert_eq!(nodes.iter().map(|node| &node["name"]).collect::<Vec<_>>(), order);
    for node in nodes {
        assert_eq!(
            (&node["from"], &node["to"]),
            (&"1.0.0".into(), &"2.0.0".into()),
            "{node}"
        );
        assert!(
            node["seconds"].as_f64().is_some_and(|seconds| seconds > 0.0),
            "{node}"
        );
    }
    let artifacts = shown["artifacts"].as_array().context("artifacts")?;
    assert!(artifacts.len() >= 6, "{shown:#}");
    for artifact in artifacts {
        assert_eq!(artifact["origin_requests"], 1, "{artifact}");
        // The preparation, and at least the node that it is for (the program itself is for none that has it).
        let at_least = if artifact["name"]
            .as_str()
            .is_some_and(|name| name.starts_with("upgrader"))
        {
            1
        } else {
            2
        };
        assert!(
            artifact["cache_requests"].as_u64() >= Some(at_least),
            "{artifact}"
        );
    }
    let number = |key: &str| shown[key].as_u64().context(key.to_owned());
    let published = bytes_of(artifacts, |_| true);
    assert!(published >= 200 << 20, "{published}");
    assert!(number("wan_bytes")? >= published, "{shown:#}");
    // The program itself is as large as it was built, and no node that has it fetches it.
    let programs = bytes_of(artifacts, |name| name.starts_with("upgrader"));
    assert!(programs > 0, "{shown:#}");
    assert!(
        number("direct_bytes")? > 2 * (number("wan_bytes")? - programs),
        "{shown:#}"
    );
    Ok(())
}

#[test]
fn an_interrupted_demonstration_leaves_nothing() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut kato = command::new(binaries::built("kato")?);
    kato.args(["demo", "--json", "--dir"]).arg(dir.path());
    let mut child = kato.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    // In the middle: the cache runs and is being filled.
    let cache_runs = || {
        let processes = process::others().ok()?;
        let serves =
            |running: &process::Running| running.names(dir.path()) && running.names(Path::new("proxy.toml"));
        processes.iter().any(serves).then_some(())
    };
    let seen = wait::until("the cache of the demonstration", DEADLINE, || {
        cache_runs()
            .map(Ok)
            .or_else(|| child.try_wait().ok().flatten().map(Err))
    })?;
    assert!(
        seen.is_ok(),
        "the demonstration ended before its cache ran: {seen:?}"
    );
    let pid = Pid::from_raw(i32::try_from(child.id())?).context("a process number")?;
    kill_process(pid, Signal::INT)?;
    let status = command::end(&mut child, "kato demo", DEADLINE)?;
    assert_eq!(status.code(), Some(75));
    assert_nothing_left(dir.path())
}

#[test]
fn a_folder_that_is_not_there_is_refused() -> Result<()> {
    let mut kato = command::new(binaries::built("kato")?);
    kato.args(["demo", "--json", "--dir", "/nonexistent/folder"]);
    let output = command::run(kato, DEADLINE, &[])?;
    assert_eq!(output.status.code(), Some(super::PREFLIGHT));
    let said: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!(said["ok"], false);
    assert!(
        said["error"]
            .as_str()
            .is_some_and(|error| error.contains("/nonexistent/folder")),
        "{said}"
    );
    Ok(())
}
