//! Media with bad sectors, and a store that another command has open.

use std::fs;

use anyhow::{Result, ensure};
use rustix::fs::{FlockOperation, flock};

use crate::{Site, only};

#[tokio::test]
async fn a_store_that_another_command_has_open_is_tried_again_later() -> Result<()> {
    let site = Site::new(3).await?;
    let (store, key, out) = (site.at("here"), site.at("key"), site.at("out"));
    site.ok(&Site::export(&store, &key, &out), &[])?;
    let bundle = only(&site.path("out"))?.display().to_string();
    let (there, public) = (site.at("there"), site.at("key.pub"));
    let import = Site::import(&bundle, &there, &public);
    fs::create_dir(site.path("there"))?;
    let lock = kato_shared::durable::create_new(&site.path("there/lock"))?;
    flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
    let refused = site.run(&import, &[])?;
    let said = String::from_utf8_lossy(&refused.stderr);
    ensure!(
        refused.status.code() == Some(75) && said.contains("wait until it ends"),
        "{refused:?}"
    );
    drop(lock);
    site.ok(&import, &[]).map(drop)
}

/// Needs root and FUSE.
mod as_root {
    use anyhow::{Context, Result, ensure};
    use integration_tests::faulty::{Act, Faulty};
    use serde_json::Value;

    use super::*;

    #[tokio::test]
    #[expect(clippy::print_stderr, reason = "a test that could not test has to say so")]
    async fn a_volume_that_cannot_be_read_costs_that_volume() -> Result<()> {
        let disk = match Faulty::mount() {
            Ok(disk) => disk,
            Err(missing) => {
                eprintln!("NOT TESTED: {missing:#}; unit tests of `bundle` read past errors all the same");
                return Ok(());
            }
        };
        let site = Site::new(12).await?;
        let (store, key, out) = (site.at("here"), site.at("key"), site.at("out"));
        let mut export = Site::export(&store, &key, &out);
        export.extend(["--volume", "131072"]);
        site.ok(&export, &[])?;
        let bundle = only(&site.path("out"))?;
        copy(&bundle, &disk.path().join("bundle"))?;
        let volumes = fs::read_dir(&bundle)?.count() - 1;
        ensure!(volumes > 3, "{volumes} volumes");
        let on_disk = disk.path().join("bundle").display().to_string();
        let (there, public) = (site.at("there"), site.at("key.pub"));
        let mut import = Site::import(&on_disk, &there, &public).to_vec();
        import.push("--json");

        disk.fail(Act::Read, ".v002-of", 0);
        let said = site.run(&import, &[])?;
        ensure!(said.status.code() == Some(21), "{said:?}");
        let document: Value = serde_json::from_slice(&said.stdout)?;
        let findings = document["findings"].as_array().context("no findings")?;
        ensure!(
            findings.iter().all(|found| found["volume"]
                .as_str()
                .is_some_and(|volume| volume.contains(".v002-of"))),
            "{document}"
        );
        ensure!(
            findings
                .iter()
                .any(|found| found["urls"].as_array().is_some_and(|urls| !urls.is_empty())),
            "no URL is named: {document}"
        );
        ensure!(site.path("there/request.json").exists(), "no request");
        let stored = document["stored"].as_u64().context("nothing stored")?;
        ensure!(stored > 500_000, "only {stored} bytes came in");
        disk.heal();
        site.ok(&import, &[]).map(drop)
    }

    fn copy(from: &std::path::Path, to: &std::path::Path) -> Result<()> {
        fs::create_dir(to)?;
        for item in fs::read_dir(from)? {
            let item = item?;
            let (here, there) = (item.path(), to.join(item.file_name()));
            if here.is_dir() {
                copy(&here, &there)?;
            } else {
                kato_shared::durable::write(&there, &fs::read(here)?, 0o644)?;
            }
        }
        Ok(())
    }
}
