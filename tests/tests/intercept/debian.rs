//! apt with an https source of a signed archive, its settings, lists and cache its own.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result};
use integration_tests::{
    archive::{Archive, apt},
    command,
    origin::Resource,
};
use kato_shared::{Digest, durable};
use tokio::task::spawn_blocking;

use crate::site::{Site, text};

/// Where the package is, below the archive.
const POOL: &str = "pool/kato-sample_1.0_all.deb";

/// What apt downloads: it checks the digest alone, so this need not be a package.
const PACKAGE: &[u8] = b"the content of a package";

/// Puts a signed archive with one package on the origin of `site`; the archive keeps the key.
fn publish(site: &Site) -> Result<Archive> {
    let packages = format!(
        "Package: kato-sample\nVersion: 1.0\nArchitecture: all\nMaintainer: nobody <nobody@lab.example>\nDescription: sample\n\
         Filename: {POOL}\nSize: {}\nSHA256: {}\n",
        PACKAGE.len(),
        Digest::of(PACKAGE).hex()
    );
    let mut archive = Archive::new()?;
    archive.index("main/binary-amd64/Packages", packages);
    archive.publish(&site.origin)?;
    site.origin
        .serve(&format!("/debian/{POOL}"), Resource::cacheable(PACKAGE));
    Ok(archive)
}

/// `apt-get update` and `apt-get download` by a new client that trusts `ca`; what it downloaded.
async fn download(site: &Site, key: &Path, host: &str, ca: &str) -> Result<Vec<u8>> {
    let client = tempfile::tempdir()?;
    let root = text(client.path())?;
    let source = format!(
        "deb [signed-by={} arch=amd64] https://{host}:{}/debian/ stable main\n",
        key.display(),
        site.port
    );
    durable::write(&client.path().join("sources.list"), source.as_bytes(), 0o644)?;
    let options = [
        format!("Acquire::https::Proxy=http://{}/", site.proxy.data),
        format!("Acquire::https::CAInfo={ca}"),
        format!("Dir::Etc::SourceList={root}/sources.list"),
        "Dir::Etc::SourceParts=/dev/null".to_owned(),
        "Acquire::Languages=none".to_owned(),
    ];
    for words in [&["update"][..], &["download", "kato-sample"]] {
        let apt = apt(client.path(), &options, words)?;
        let line = command::line(&apt);
        let ended = spawn_blocking(move || command::run(apt, Duration::from_secs(60), &[])).await??;
        command::success(&line, ended)?;
    }
    std::fs::read(client.path().join("kato-sample_1.0_all.deb")).context("no package")
}

/// How often the package was asked of the origin.
fn asked(site: &Site) -> usize {
    site.origin.requests(&format!("/debian/{POOL}")).len()
}

#[tokio::test(flavor = "multi_thread")]
async fn p07_apt_with_an_https_source_is_served_from_the_store_where_connect_is_opened() -> Result<()> {
    let mut site = Site::start("").await?;
    let archive = publish(&site)?;
    let ca = site.ca().await?;
    assert_eq!(download(&site, &archive.key(), "localhost", &ca).await?, PACKAGE);
    assert_eq!(asked(&site), 1);
    // A second client, with the origin gone.
    site.origin.stop().await;
    assert_eq!(download(&site, &archive.key(), "localhost", &ca).await?, PACKAGE);
    assert_eq!(asked(&site), 1);
    Ok(())
}

/// apt's TLS library reads more into name constraints than others do.
#[tokio::test(flavor = "multi_thread")]
async fn p07_apt_takes_the_certificate_of_an_address_whether_names_are_opened_beside_it_or_not() -> Result<()>
{
    for opened in [[false, true], [true, true]] {
        let site = Site::start_opening(opened, "", &[]).await?;
        let archive = publish(&site)?;
        let ca = site.ca().await?;
        assert_eq!(download(&site, &archive.key(), "127.0.0.1", &ca).await?, PACKAGE);
        assert_eq!(download(&site, &archive.key(), "127.0.0.1", &ca).await?, PACKAGE);
        assert_eq!(asked(&site), 1, "{opened:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn p07_apt_with_an_https_source_works_through_a_tunnel() -> Result<()> {
    let site = Site::start("").await?;
    let archive = publish(&site)?;
    let origin_ca = site.file("origin-ca.pem")?;
    for times in 1..=2 {
        assert_eq!(
            download(&site, &archive.key(), "127.0.0.1", &origin_ca).await?,
            PACKAGE
        );
        assert_eq!(asked(&site), times, "a tunnel keeps nothing");
    }
    Ok(())
}
