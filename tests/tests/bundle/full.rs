//! A disk that fills up half-way, which nobody could foresee: said with path, need and what there is; nothing half of a bundle is in use, and the same
//! command goes on.

use std::{fs, path::Path, process::Output};

use anyhow::{Context, Result, ensure};

use crate::{Site, only};

/// Moments of each run.
const MOMENTS: usize = 12;

/// Places of a run at equal distances that need room.
fn moments(trace: &Path) -> Result<Vec<String>> {
    let text = fs::read_to_string(trace)?;
    let needs_room = |visit: &&str| {
        [
            "create.before",
            "write.before",
            "make-folder.before",
            "rename.before",
        ]
        .iter()
        .any(|operation| visit.starts_with(operation))
            && !visit.contains("/store/")
    };
    let all: Vec<&str> = text.lines().filter(needs_room).collect();
    ensure!(all.len() >= MOMENTS, "only {} places", all.len());
    let taken = (0..MOMENTS).map(|n| all[n * (all.len() - 1) / (MOMENTS - 1)].to_owned());
    Ok(taken.collect())
}

/// The run ended as it should where a disk of `folder` was full.
fn is_told(said: &Output, folder: &Path) -> Result<()> {
    let words = String::from_utf8_lossy(&said.stderr);
    ensure!(said.status.code() == Some(20), "{said:?}");
    for part in [
        &format!("the disk of `{}", folder.display()),
        "` is full: ",
        " more ",
        " needed there, ",
        " are free",
        "hint: make room; the same command",
    ] {
        ensure!(words.contains(part), "`{part}` is not said: {words}");
    }
    Ok(())
}

async fn full_exports(more: &[&str]) -> Result<()> {
    let site = Site::new(12).await?;
    let (store, key, out) = (site.at("here"), site.at("key"), site.at("out"));
    let mut export = Site::export(&store, &key, &out);
    export.extend(more);
    site.ok(&export, &[("KATO_KILL_TRACE", &site.at("trace"))])?;
    for moment in moments(&site.path("trace"))? {
        fs::remove_dir_all(site.path("out"))?;
        fs::remove_dir_all(site.path("here/snapshots"))?;
        let said = site.run(&export, &[("KATO_FULL_AT", &moment)])?;
        is_told(&said, &site.path("")).with_context(|| format!("full at {moment}"))?;
        site.ok(&export, &[])
            .with_context(|| format!("after a full disk at {moment}"))?;
        let bundle = only(&site.path("out"))?.display().to_string();
        site.ok(
            &["bundle", "verify", &bundle, "--trust", &site.at("key.pub")],
            &[],
        )
        .with_context(|| format!("after a full disk at {moment}"))?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_of_a_folder_says_so_and_goes_on() -> Result<()> {
    full_exports(&[]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_of_volumes_says_so_and_goes_on() -> Result<()> {
    full_exports(&["--volume", "131072"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_says_so_activates_nothing_and_goes_on() -> Result<()> {
    let site = Site::new(12).await?;
    let (store, key, out) = (site.at("here"), site.at("key"), site.at("out"));
    site.ok(&Site::export(&store, &key, &out), &[])?;
    let bundle = only(&site.path("out"))?.display().to_string();
    let (there, public) = (site.at("there"), site.at("key.pub"));
    let import = Site::import(&bundle, &there, &public);
    site.ok(&import, &[("KATO_KILL_TRACE", &site.at("trace"))])?;
    for moment in moments(&site.path("trace"))? {
        fs::remove_dir_all(site.path("there"))?;
        let said = site.run(&import, &[("KATO_FULL_AT", &moment)])?;
        // What founds the store is no part of the import; what follows the activation is tidied up by the next run.
        let is_active = site.path("there/snapshots/active.json").exists();
        ensure!(
            said.status.code() == Some(20) || is_active,
            "full at {moment}: {said:?}"
        );
        if said.status.code() == Some(20) && site.path("there/snapshots").exists() {
            is_told(&said, &site.path("")).with_context(|| format!("full at {moment}"))?;
            ensure!(!is_active, "full at {moment}, and a snapshot is active");
        }
        let said = site
            .ok(&import, &[])
            .with_context(|| format!("after a full disk at {moment}"))?;
        ensure!(
            said.contains("active      test 1"),
            "after a full disk at {moment}: {said}"
        );
    }
    Ok(())
}

/// Needs root: a file system of its own.
mod as_root {
    use super::*;

    /// Bytes are free, and no file can be made: `df` shows nothing, so that it has to be said.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_file_system_without_inodes_is_named() -> Result<()> {
        let site = Site::new(4).await?;
        let (store, key, out) = (site.at("here"), site.at("key"), site.at("small"));
        fs::create_dir(site.path("small"))?;
        let program = integration_tests::proxy::program()?;
        let export = Site::export(&store, &key, &out);
        // Its folder is one; then there is room for none, and for that of the bundle and nothing in it.
        for inodes in [1, 3] {
            let script =
                format!("mount -t tmpfs -o size=64m,nr_inodes={inodes} none \"$1\" && shift && exec \"$@\"");
            let mut command = integration_tests::command::new("unshare");
            command.args(["--mount", "--", "sh", "-c", &script, "sh", &out]);
            command.arg(&program).args(&export);
            let said = integration_tests::command::run(command, crate::SOON, &[])?;
            let words = String::from_utf8_lossy(&said.stderr);
            ensure!(said.status.code() == Some(20), "{inodes}: {said:?}");
            for part in [
                &format!("`{out}` has no room for another file"),
                "inodes",
                "hint: remove files there",
            ] {
                ensure!(words.contains(part), "{inodes}: `{part}` is not said: {words}");
            }
        }
        Ok(())
    }
}
