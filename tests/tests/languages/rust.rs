//! cargo.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;
use integration_tests::{
    command,
    origin::Resource,
    published::{self, CRATE as ARCHIVE},
};

use crate::site::{Site, put, run, succeed, until_it_succeeds};

/// Serves the crate `hello-site`; returns its archive.
pub(crate) fn publish(site: &Site) -> Result<Vec<u8>> {
    published::publish_crate(&site.index, &site.files, &site.folder("crate")?)
}

/// cargo in a project that wants the crate, with nothing but the cache to ask and nothing remembered.
pub(crate) fn cargo(site: &Site, project: &Path, arguments: &[&str]) -> Command {
    let program = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let rustc = Path::new(&program).with_file_name("rustc");
    let mut cargo = command::new(&program);
    cargo.env("RUSTC", rustc);
    cargo.current_dir(project).args(arguments);
    cargo.env("CARGO_HOME", project.join("remembered"));
    cargo.env("CARGO_NET_RETRY", "0");
    let index = format!("sparse+{}/crates/", site.url());
    cargo.env("CARGO_REGISTRIES_SITE_INDEX", index);
    cargo
}

/// A project that wants the crate.
pub(crate) fn project(site: &Site, name: &str) -> Result<PathBuf> {
    let folder = site.folder(name)?;
    let manifest = "[package]\nname = \"project\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[dependencies]\nhello-site = { version = \"1\", registry = \"site\" }\n[workspace]\n";
    put(&folder, "Cargo.toml", manifest.as_bytes())?;
    put(&folder, "src/lib.rs", b"//! Nothing.\n")?;
    Ok(folder)
}

#[tokio::test(flavor = "multi_thread")]
async fn cargo_fetches_locked_and_again_without_the_origins() -> Result<()> {
    twice(Site::start("crates", "cargo").await?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn cargo_fetches_by_the_preset_and_again_without_the_origins() -> Result<()> {
    let (index, files) = ("https://crates-index.example/", "https://archives.example/");
    twice(Site::of_preset("cargo", index, Some(files)).await?).await
}

async fn twice(mut site: Site) -> Result<()> {
    let archive = publish(&site)?;
    let first = project(&site, "first")?;
    succeed(cargo(&site, &first, &["generate-lockfile"])).await?;
    succeed(cargo(&site, &first, &["fetch", "--locked"])).await?;
    assert_eq!(
        site.files.requests(ARCHIVE).len(),
        1,
        "asked through us, and once"
    );
    let stored = site.proxy.client().get(&site.files.url(ARCHIVE));
    site.proxy.wait_until_stored(&stored, &archive).await?;

    site.cut_off().await;
    let second = project(&site, "second")?;
    put(&second, "Cargo.lock", &fs::read(first.join("Cargo.lock"))?)?;
    succeed(cargo(&site, &second, &["fetch", "--locked"])).await?;
    Ok(())
}

/// The host of archives has other bytes than the index says.
#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_is_not_what_the_index_says_is_refused_and_never_stored() -> Result<()> {
    let site = Site::start("crates", "cargo").await?;
    let archive = publish(&site)?;
    let mut other = archive.clone();
    let last = other.len() - 1;
    other[last] ^= 1;
    site.files.serve(ARCHIVE, Resource::cacheable(other));
    let first = project(&site, "first")?;
    succeed(cargo(&site, &first, &["generate-lockfile"])).await?;
    let refused = run(cargo(&site, &first, &["fetch", "--locked"])).await?;
    assert!(!refused.status.success());
    // By the cache, not by cargo.
    site.proxy.wait_for_log("digest mismatch").await?;

    site.files.serve(ARCHIVE, Resource::cacheable(archive));
    until_it_succeeds(|| cargo(&site, &first, &["fetch", "--locked"])).await?;
    Ok(())
}
