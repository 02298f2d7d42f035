//! TLS by certificate files.

use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

use anyhow::{Context, Result};
use integration_tests::{
    origin::{Fault, Gate, Resource},
    proxy::{self, Settings},
};
use tokio::{io::AsyncReadExt, net::TcpStream, task::JoinSet, time::timeout};

use super::{Pair, Setup, path, run};

/// What openssl tells about a handshake with `protocols` offered.
async fn handshake(setup: &Setup, protocols: &str) -> Result<String> {
    let address = setup.proxy.tls.context("no TLS")?.to_string();
    run(&["openssl", "s_client", "-connect", &address, "-alpn", protocols]).await
}

#[tokio::test]
async fn both_protocols_are_spoken_over_tls_and_the_client_chooses() -> Result<()> {
    let setup = Setup::start(&[]).await?;
    setup.serve(b"content");
    assert_eq!(setup.curl(&["--http2"]).await?, "content 2 200");
    assert_eq!(setup.curl(&["--http1.1"]).await?, "content 1.1 200");
    assert_eq!(setup.origin.requests("/a").len(), 1);
    for (offered, agreed) in [
        ("h2,http/1.1", "ALPN protocol: h2"),
        ("http/1.1", "ALPN protocol: http/1.1"),
    ] {
        let told = handshake(&setup, offered).await?;
        assert!(told.contains(agreed), "{told}");
        assert!(told.contains("TLSv1.3"), "{told}");
    }
    Ok(())
}

#[tokio::test]
async fn a_large_body_over_tls_is_whole_by_either_protocol() -> Result<()> {
    let setup = Setup::start(&[]).await?;
    let content: Vec<u8> = (0_u32..2_000_000).flat_map(u32::to_le_bytes).collect();
    setup.serve(&content);
    for version in ["--http2", "--http1.1"] {
        let got = setup.folder.path().join("got");
        let said = setup.curl(&[version, "--output", path(&got)?]).await?;
        assert!(said.ends_with(" 200"), "{said}");
        assert!(fs::read(&got)? == content, "{version}");
        let part = setup.folder.path().join("part");
        setup
            .curl(&[version, "--range", "5000000-7999999", "--output", path(&part)?])
            .await?;
        assert!(fs::read(&part)? == content[5_000_000..], "{version}");
    }
    Ok(())
}

#[tokio::test]
async fn a_new_certificate_is_in_force_soon_and_a_download_under_way_ends() -> Result<()> {
    let setup = Setup::start(&[]).await?;
    let gate = Gate::closed();
    let content = vec![7; 1 << 20];
    let held = Fault::HoldBody(1000, gate.clone());
    setup
        .origin
        .serve("/a", Resource::cacheable(content.clone()).fault(held));
    let got = setup.folder.path().join("got");
    let mut clients = JoinSet::new();
    let argv: Vec<String> = [
        "curl",
        "--silent",
        "--cacert",
        path(&setup.pair.certificate)?,
        "--output",
        path(&got)?,
        &setup.url()?,
    ]
    .map(str::to_owned)
    .to_vec();
    clients.spawn_blocking(move || integration_tests::command::ok(&argv));
    setup.origin.wait_for_requests("/a", 1).await?;
    assert!(handshake(&setup, "h2").await?.contains("CN = first"));

    // One file after the other, as tools do; in between the two do not fit.
    let next = Pair::make(setup.folder.path(), "second").await?;
    run(&["mv", path(&next.certificate)?, path(&setup.pair.certificate)?]).await?;
    setup.proxy.wait_for_log("cannot be used together").await?;
    assert!(handshake(&setup, "h2").await?.contains("CN = first"));
    run(&["mv", path(&next.key)?, path(&setup.pair.key)?]).await?;
    setup.proxy.wait_for_log("a new certificate is in force").await?;
    assert!(handshake(&setup, "h2").await?.contains("CN = second"));

    gate.open();
    clients.join_next().await.context("no client")???;
    assert!(fs::read(&got)? == content);
    Ok(())
}

#[tokio::test]
async fn a_pair_that_cannot_be_used_ends_the_start_with_the_names_of_the_files() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (one, other) = (
        Pair::make(folder.path(), "one").await?,
        Pair::make(folder.path(), "other").await?,
    );
    let empty = folder.path().join("empty.pem");
    fs::File::create_new(&empty)?;
    let cases = [
        (
            &one.certificate,
            Some(&other.key),
            "the private key that belongs to it",
        ),
        (&empty, Some(&one.key), "empty.pem` holds no usable CERTIFICATE"),
        (
            &one.certificate,
            Some(&empty),
            "empty.pem` holds no usable PRIVATE KEY",
        ),
        (
            &folder.path().join("absent"),
            Some(&one.key),
            "absent` cannot be read",
        ),
        (&one.certificate, None, "names no key"),
    ];
    for (certificate, key, expected) in cases {
        let mut arguments = vec!["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
        let cache = folder.path().join("cache");
        arguments.extend(["--listen-tls", "127.0.0.1:0", "--cache-dir", path(&cache)?]);
        arguments.extend(["--tls-certificate", path(certificate)?]);
        if let Some(key) = key {
            arguments.extend(["--tls-key", path(key)?]);
        }
        let ended = proxy::run_to_end(&arguments).await?;
        assert_eq!(ended.code, Some(2), "{}", ended.stderr);
        assert!(ended.stderr.contains(expected), "{}", ended.stderr);
    }
    Ok(())
}

#[tokio::test]
async fn a_key_that_others_can_read_is_warned_about() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let pair = Pair::make(folder.path(), "open").await?;
    for (mode, is_warned) in [(0o640, false), (0o644, true)] {
        fs::set_permissions(&pair.key, fs::Permissions::from_mode(mode))?;
        let proxy = Settings::new(&folder.path().join(format!("cache-{mode}")))
            .arguments(&["--listen-tls", "127.0.0.1:0", "--tls-certificate"])
            .arguments(&[path(&pair.certificate)?, "--tls-key", path(&pair.key)?])
            .start()
            .await?;
        let log = proxy.log();
        assert_eq!(
            log.contains("can read the private key"),
            is_warned,
            "{mode:o}: {log}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_client_that_does_not_end_its_handshake_is_given_up() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let settings = folder.path().join("proxy.toml");
    kato_shared::durable::write(&settings, b"[limits]\nheader_timeout = \"300ms\"\n", 0o600)?;
    let setup = Setup::start(&["--config", path(&settings)?]).await?;
    for silent in [setup.proxy.tls.context("no TLS")?, setup.proxy.data] {
        let mut client = TcpStream::connect(silent).await?;
        let mut nothing = Vec::new();
        timeout(Duration::from_secs(20), client.read_to_end(&mut nothing))
            .await
            .context("the connection stays open")??;
        assert!(nothing.is_empty());
    }
    setup.serve(b"content");
    assert_eq!(setup.curl(&["--http2"]).await?, "content 2 200");
    Ok(())
}
