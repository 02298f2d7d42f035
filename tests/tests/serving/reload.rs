//! SIGHUP.

use std::path::{Path, PathBuf};

use anyhow::Result;
use integration_tests::{
    origin::{Fault, Gate, Origin, Resource},
    proxy::{Proxy, Settings},
};
use tempfile::TempDir;

use super::path;

struct Setup {
    origin: Origin,
    proxy: Proxy,
    file: PathBuf,
    folder: TempDir,
}

fn write(file: &Path, text: &str) -> Result<()> {
    Ok(kato_shared::durable::write(file, text.as_bytes(), 0o600)?)
}

impl Setup {
    /// The upstream `files` is a flag, everything else is in a file.
    async fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("proxy.toml");
        write(&file, "offline = false\n")?;
        let origin = Origin::start().await?;
        let proxy = Settings::new(&folder.path().join("cache"))
            .upstream("files", &origin.url("/"))
            .arguments(&["--config", path(&file)?])
            .start()
            .await?;
        Ok(Self {
            origin,
            proxy,
            file,
            folder,
        })
    }
}

#[tokio::test]
async fn a_download_in_flight_finishes_and_a_new_upstream_is_served_afterwards() -> Result<()> {
    let setup = Setup::start().await?;
    let gate = Gate::closed();
    let content = vec![5; 2 << 20];
    let held = Fault::HoldBody(1 << 20, gate.clone());
    setup
        .origin
        .serve("/a", Resource::cacheable(content.clone()).fault(held));
    let mut client = setup.proxy.client().get("/files/a").send().await?;
    client.read_at_least(1000).await?;

    let other = Origin::start().await?;
    other.serve("/b", Resource::cacheable(b"of the other".to_vec()));
    let added = format!(
        "[[upstream]]\nname = \"other\"\nurls = [\"{}\"]\n",
        other.url("/")
    );
    write(&setup.file, &added)?;
    setup.proxy.reload()?;
    setup.proxy.wait_for_log("are in force").await?;
    let (_, body) = setup.proxy.client().fetch("/other/b").await?;
    assert_eq!(body, b"of the other");
    // What flags say stays said.
    let mut again = setup.proxy.client().get("/files/a").send().await?;
    gate.open();
    for client in [&mut client, &mut again] {
        let got = client.finish().await?;
        assert!(got.looks_whole && got.bytes == content);
    }
    assert_eq!(setup.origin.requests("/a").len(), 1);
    Ok(())
}

#[tokio::test]
async fn a_file_that_is_refused_changes_nothing_and_the_log_says_why() -> Result<()> {
    let setup = Setup::start().await?;
    setup.origin.serve("/a", Resource::cacheable(b"content".to_vec()));
    let bad = [
        ("offline = true\nlimts = 1\n", "unknown key `limts`"),
        (
            "offline = true\n[limits]\nconnections = 0\n",
            "limits.connections is 0",
        ),
        ("offline = \"tr", "proxy.toml:1"),
    ];
    for (text, expected) in bad {
        write(&setup.file, text)?;
        setup.proxy.reload()?;
        setup.proxy.wait_for_log(expected).await?;
        assert!(setup.proxy.log().contains("the settings stay as they were"));
        let fresh = format!("/a?{}", text.len());
        setup
            .origin
            .serve(&fresh, Resource::cacheable(b"content".to_vec()));
        let (answer, _) = setup.proxy.client().fetch(&format!("/files{fresh}")).await?;
        assert_eq!(answer.status, 200, "offline = true is not in force");
    }
    std::fs::remove_file(&setup.file)?;
    setup.proxy.reload()?;
    setup.proxy.wait_for_log("proxy.toml").await?;
    assert_eq!(setup.proxy.client().fetch("/files/a").await?.0.status, 200);
    Ok(())
}

#[tokio::test]
async fn what_needs_a_restart_is_said_by_name() -> Result<()> {
    let setup = Setup::start().await?;
    let elsewhere = setup.folder.path().join("elsewhere");
    let text = format!(
        "offline = true\n[listen]\ntls = \"127.0.0.1:1\"\n[cache]\nmemory = \"1MiB\"\n[tls]\ncertificate = \"{0}\"\nkey = \"{0}\"\n",
        path(&elsewhere)?
    );
    write(&setup.file, &text)?;
    setup.proxy.reload()?;
    setup.proxy.wait_for_log("are in force").await?;
    let log = setup.proxy.log();
    for key in ["listen.tls", "cache.memory"] {
        assert!(log.contains(key), "{log}");
    }
    assert!(
        !log.contains("listen.data"),
        "that is a flag and unchanged: {log}"
    );
    let (answer, _) = setup.proxy.client().fetch("/files/new").await?;
    assert_eq!(answer.status, 404, "offline is in force");
    Ok(())
}
