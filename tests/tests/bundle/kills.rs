//! SIGKILL at moments that are spread over a whole export and a whole import; then the same command again, and the same result.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Context, Result, ensure};

use crate::{Site, only};

/// Moments of each of the four runs.
const MOMENTS: usize = 50;
/// Whose places are those of parts that become a blob.
const STAGE: &str = "proxy/src/bundle/stage.rs@";
/// Whose places are those of a store that is founded.
const INDEX: &str = "proxy/src/store/index_file.rs@";

/// Places that an undisturbed run visits: [`MOMENTS`] at equal distances, each between the note about the last part of a blob and
/// the end of its notes, and each of founding a store.
fn moments(trace: &Path) -> Result<Vec<String>> {
    let text = fs::read_to_string(trace)?;
    let all: Vec<&str> = text.lines().collect();
    let mut taken: BTreeSet<usize> = (0..MOMENTS)
        .map(|n| n * (all.len() - 1) / (MOMENTS - 1))
        .collect();
    ensure!(taken.len() == MOMENTS, "only {} places", all.len());
    let last = |operation: &str| {
        let place = format!("{operation} {STAGE}");
        all.iter().rposition(|visit| visit.starts_with(&place))
    };
    if let (Some(noted), Some(removed)) = (last("write.after"), last("remove.before")) {
        taken.extend(noted..=removed);
    }
    let is_founding = |visit: &str| visit.contains(INDEX) || visit.starts_with("index.founding");
    taken.extend((0..all.len()).filter(|at| is_founding(all[*at])));
    Ok(taken.into_iter().map(|at| all[at].to_owned()).collect())
}

/// What of a bundle does not depend on when it was made.
fn shape(out: &Path) -> Result<(Vec<u8>, Vec<u8>)> {
    let bundle = only(out)?;
    let head = bundle.join("test-000001.head");
    let head = if head.exists() { head } else { bundle };
    ensure!(!head.join("EXPORT.json").exists(), "the journal is in the bundle");
    Ok((
        fs::read(head.join("MEMBERS.jsonl"))?,
        fs::read(head.join("index.json"))?,
    ))
}

async fn killed_exports(more: &[&str]) -> Result<()> {
    let site = Site::new(12).await?;
    let (store, key, out) = (site.at("here"), site.at("key"), site.at("out"));
    let mut export = Site::export(&store, &key, &out);
    export.extend(more);
    let trace = site.at("trace");
    site.ok(&export, &[("KATO_KILL_TRACE", &trace)])?;
    let expected = shape(&site.path("out"))?;
    for moment in moments(&site.path("trace"))? {
        fs::remove_dir_all(site.path("out"))?;
        fs::remove_dir_all(site.path("here/snapshots"))?;
        let killed = site.run(&export, &[("KATO_KILL_AT", &moment)])?;
        ensure!(!killed.status.success(), "not killed at {moment}");
        site.ok(&export, &[])
            .with_context(|| format!("after a kill at {moment}"))?;
        ensure!(
            shape(&site.path("out"))? == expected,
            "another bundle after a kill at {moment}"
        );
        let bundle = only(&site.path("out"))?.display().to_string();
        site.ok(
            &["bundle", "verify", &bundle, "--trust", &site.at("key.pub")],
            &[],
        )
        .with_context(|| format!("after a kill at {moment}"))?;
    }
    Ok(())
}

async fn killed_imports(more: &[&str]) -> Result<()> {
    let site = Site::new(12).await?;
    let (store, key, out) = (site.at("here"), site.at("key"), site.at("out"));
    let mut export = Site::export(&store, &key, &out);
    export.extend(more);
    site.ok(&export, &[])?;
    let bundle = only(&site.path("out"))?.display().to_string();
    let (there, public, trace) = (site.at("there"), site.at("key.pub"), site.at("trace"));
    let import = [
        "bundle",
        "import",
        &bundle,
        "--cache-dir",
        &there,
        "--trust",
        &public,
    ];
    site.ok(&import, &[("KATO_KILL_TRACE", &trace)])?;
    let active = fs::read(site.path("there/snapshots/active.json"))?;
    let moments = moments(&site.path("trace"))?;
    let mut survivors = Vec::new();
    for moment in &moments {
        fs::remove_dir_all(site.path("there"))?;
        let killed = site.run(&import, &[("KATO_KILL_AT", moment)])?;
        if killed.status.success() {
            survivors.push(moment);
        }
        let said = site
            .ok(&import, &[])
            .with_context(|| format!("after a kill at {moment}"))?;
        ensure!(!said.contains("wrong"), "after a kill at {moment}: {said}");
        let found = fs::read(site.path("there/snapshots/active.json"))?;
        ensure!(found == active, "another snapshot after a kill at {moment}");
        let left = fs::read_dir(site.path("there/tmp"))?.count();
        ensure!(left == 0, "{left} files left over after a kill at {moment}");
        let parts = fs::read_dir(site.path("there/snapshots/parts")).map_or(0, Iterator::count);
        ensure!(parts == 0, "{parts} parts left over after a kill at {moment}");
        // All of it is there and right: nothing is stored a second time.
        let again = site.ok(&import, &[])?;
        ensure!(
            again.contains(" 0 B stored") || again.contains("0 stored"),
            "{again}"
        );
    }
    // What a background thread does may come later or not at all.
    ensure!(
        survivors.len() * 10 <= moments.len(),
        "not killed at {survivors:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_of_a_folder_survives() -> Result<()> {
    killed_exports(&[]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_of_volumes_survives() -> Result<()> {
    killed_exports(&["--volume", "131072"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_of_a_folder_survives() -> Result<()> {
    killed_imports(&[]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_of_volumes_survives() -> Result<()> {
    killed_imports(&["--volume", "131072"]).await
}
