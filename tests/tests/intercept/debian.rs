//! apt with an https source, its settings, lists and cache its own.

use anyhow::{Context, Result};
use integration_tests::origin::Resource;
use kato_shared::{Digest, durable};

use crate::site::{Site, run, text};

/// What apt downloads: it checks the digest alone, so this need not be a package.
const PACKAGE: &[u8] = b"the content of a package";

/// Puts a repository with one package on the origin of `site`.
fn publish(site: &Site) {
    let packages = format!(
        "Package: kato-sample\nVersion: 1.0\nArchitecture: all\nMaintainer: nobody <nobody@lab.example>\nDescription: sample\n\
         Filename: ./kato-sample_1.0_all.deb\nSize: {}\nSHA256: {}\n",
        PACKAGE.len(),
        Digest::of(PACKAGE).hex()
    );
    let release = format!(
        "Date: Thu, 01 Jan 2026 00:00:00 UTC\nSHA256:\n {} {} Packages\n",
        Digest::of(packages.as_bytes()).hex(),
        packages.len()
    );
    for (path, content) in [
        ("/./Packages", packages.as_bytes()),
        ("/Packages", packages.as_bytes()),
        ("/./Release", release.as_bytes()),
        ("/Release", release.as_bytes()),
        ("/./kato-sample_1.0_all.deb", PACKAGE),
        ("/kato-sample_1.0_all.deb", PACKAGE),
    ] {
        site.origin.serve(path, Resource::cacheable(content.to_vec()));
    }
}

/// `apt-get update` and `apt-get download` by a new client that trusts `ca`; what it downloaded.
async fn download(site: &Site, host: &str, ca: &str) -> Result<Vec<u8>> {
    let client = tempfile::tempdir()?;
    let root = text(client.path())?;
    for folder in ["lists/partial", "cache/archives/partial", "status.d"] {
        durable::create_folder(&client.path().join(folder))?;
    }
    let source = format!("deb [trusted=yes] https://{host}:{}/ ./\n", site.port);
    durable::write(&client.path().join("sources.list"), source.as_bytes(), 0o644)?;
    durable::write(&client.path().join("status"), b"", 0o644)?;
    let options = [
        format!("Acquire::https::Proxy=http://{}/", site.proxy.data),
        format!("Acquire::https::CAInfo={ca}"),
        format!("Dir::Etc::SourceList={root}/sources.list"),
        "Dir::Etc::SourceParts=/dev/null".to_owned(),
        format!("Dir::State={root}"),
        format!("Dir::State::lists={root}/lists"),
        format!("Dir::State::status={root}/status"),
        format!("Dir::Cache={root}/cache"),
        "APT::Sandbox::User=".to_owned(),
        "Acquire::Retries=0".to_owned(),
        "Acquire::Languages=none".to_owned(),
        "APT::Update::Error-Mode=any".to_owned(),
    ];
    for verb in [&["update"][..], &["download", "kato-sample"]] {
        let mut argv = vec!["env", "-C", &root, "apt-get", "-q"];
        argv.extend(options.iter().flat_map(|option| ["-o", option.as_str()]));
        argv.extend(verb);
        run(&argv).await?;
    }
    std::fs::read(client.path().join("kato-sample_1.0_all.deb")).context("no package")
}

/// How often the package was asked of the origin.
fn asked(site: &Site) -> usize {
    ["/./kato-sample_1.0_all.deb", "/kato-sample_1.0_all.deb"]
        .map(|path| site.origin.requests(path).len())
        .iter()
        .sum()
}

#[tokio::test]
async fn p07_apt_with_an_https_source_is_served_from_the_store_where_connect_is_opened() -> Result<()> {
    let mut site = Site::start("").await?;
    publish(&site);
    let ca = site.ca().await?;
    assert_eq!(download(&site, "localhost", &ca).await?, PACKAGE);
    assert_eq!(asked(&site), 1);
    // A second client, with the origin gone.
    site.origin.stop().await;
    assert_eq!(download(&site, "localhost", &ca).await?, PACKAGE);
    assert_eq!(asked(&site), 1);
    Ok(())
}

#[tokio::test]
async fn p07_apt_with_an_https_source_works_through_a_tunnel() -> Result<()> {
    let site = Site::start("").await?;
    publish(&site);
    let origin_ca = site.file("origin-ca.pem")?;
    for times in 1..=2 {
        assert_eq!(download(&site, "127.0.0.1", &origin_ca).await?, PACKAGE);
        assert_eq!(asked(&site), times, "a tunnel keeps nothing");
    }
    Ok(())
}
