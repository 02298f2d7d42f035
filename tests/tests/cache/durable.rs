//! Kill, restart, shut down; and the content as a stock cacache reader sees it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use integration_tests::origin::{Fault, Gate, Resource};
use ssri::{Algorithm, IntegrityOpts};
use tokio::net::TcpStream;

use crate::{MIB, Setup, assert_same, content};

/// All files below `folder`, with their sizes.
fn files(folder: &Path) -> Result<Vec<(PathBuf, u64)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        if metadata.is_dir() {
            found.extend(files(&entry.path())?);
        } else {
            found.push((entry.path(), metadata.len()));
        }
    }
    Ok(found)
}

#[tokio::test]
async fn a_stock_cacache_reader_reads_and_verifies_what_the_fill_wrote() -> Result<()> {
    let setup = Setup::start().await?;
    let body = content(3 * MIB + 17, 41);
    setup.stored(Resource::cacheable(body.clone())).await?;
    let digest = IntegrityOpts::new()
        .algorithm(Algorithm::Sha256)
        .chain(&body)
        .result();
    let read = cacache::read_hash(setup.cache.path(), &digest).await?;
    assert_same(&read, &body, "read_hash");
    let copy = setup.cache.path().join("copy");
    let copied = cacache::copy_hash(setup.cache.path(), &digest, &copy).await?;
    assert_eq!(copied, body.len() as u64);
    assert_same(&fs::read(&copy)?, &body, "copy_hash, which verifies");
    Ok(())
}

#[tokio::test]
async fn c05_what_was_stored_is_served_by_the_next_process_without_the_origin() -> Result<()> {
    let mut setup = Setup::start().await?;
    let body = content(2 * MIB, 42);
    setup.stored(Resource::cacheable(body.clone())).await?;
    setup.proxy.kill().await?;
    setup.start_again().await?;
    let (response, got) = setup.client().fetch("/files/a").await?;
    assert!(
        response.cache_status().contains("hit"),
        "{}",
        response.cache_status()
    );
    assert_same(&got, &body, "after SIGKILL and restart");
    assert_eq!(setup.asked("/a"), 1);
    Ok(())
}

#[tokio::test]
async fn p09_the_proxy_starts_and_serves_hits_while_the_origin_is_down() -> Result<()> {
    let mut setup = Setup::start().await?;
    setup.stored(Resource::cacheable("content")).await?;
    setup.proxy.kill().await?;
    setup.origin.stop().await;
    setup.start_again().await?;
    assert_eq!(setup.client().fetch("/files/a").await?.1, b"content");
    Ok(())
}

#[tokio::test]
async fn killed_in_the_middle_of_a_download_it_serves_no_part_and_leaves_no_file_behind() -> Result<()> {
    let mut setup = Setup::start().await?;
    let body = content(8 * MIB, 43);
    let gate = Gate::closed();
    let resource = Resource::cacheable(body.clone());
    setup.origin.serve(
        "/a",
        resource.clone().fault(Fault::HoldBody(6 * MIB as u64, gate)),
    );
    let mut client = setup.client().get("/files/a").send().await?;
    client.read_at_least(5 * MIB).await?;
    let large = |path: &Path| -> Result<Vec<PathBuf>> {
        let all = files(path)?.into_iter();
        Ok(all
            .filter(|(path, size)| *size >= 4 * MIB as u64 && path.extension().is_none_or(|e| e != "redb"))
            .map(|(path, _)| path)
            .collect())
    };
    assert_eq!(large(setup.cache.path())?.len(), 1, "the growing file");
    setup.proxy.kill().await?;
    assert!(!client.finish().await?.looks_whole, "the client's body broke off");
    setup.start_again().await?;
    // Ready means cleaned: the announcement came after the temporary files went.
    assert_eq!(large(setup.cache.path())?, Vec::<PathBuf>::new());
    setup.origin.serve("/a", resource);
    let (response, got) = setup.client().fetch("/files/a").await?;
    assert!(
        response.cache_status().contains("fwd=uri-miss"),
        "{}",
        response.cache_status()
    );
    assert_same(&got, &body, "after the restart");
    Ok(())
}

#[tokio::test]
async fn a_damaged_file_in_the_store_costs_a_download_and_nothing_else() -> Result<()> {
    let mut setup = Setup::start().await?;
    let body = content(2 * MIB, 44);
    setup.stored(Resource::cacheable(body.clone())).await?;
    setup.proxy.kill().await?;
    let stored = files(&setup.cache.path().join("content-v2"))?;
    let (path, size) = stored.first().context("no content file")?;
    assert_eq!(*size, body.len() as u64);
    fs::remove_file(path)?;
    setup.start_again().await?;
    let (_, got) = setup.client().fetch("/files/a").await?;
    assert_same(&got, &body, "after the loss");
    assert_eq!(setup.asked("/a"), 2);
    Ok(())
}

#[tokio::test]
async fn a_graceful_shutdown_takes_no_new_client_and_finishes_the_bodies_under_way() -> Result<()> {
    let mut setup = Setup::start().await?;
    let body = content(4 * MIB, 45);
    let gate = Gate::closed();
    setup.origin.serve(
        "/a",
        Resource::cacheable(body.clone()).fault(Fault::HoldBody(2 * MIB as u64, gate.clone())),
    );
    let mut client = setup.client().get("/files/a").send().await?;
    client.read_at_least(MIB).await?;
    setup.proxy.terminate()?;
    // The listener goes first; until then a connection is accepted and nothing is asked on it.
    while TcpStream::connect(setup.proxy.data).await.is_ok() {
        tokio::task::yield_now().await;
    }
    gate.open();
    let got = client.finish().await?;
    assert!(got.looks_whole);
    assert_same(&got.bytes, &body, "the client under way");
    drop(client);
    let status = setup.proxy.ended().await?;
    assert!(status.success(), "{status}");
    Ok(())
}
