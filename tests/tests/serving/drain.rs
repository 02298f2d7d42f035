//! The end of a process.

use std::{fs, os::unix::fs::PermissionsExt};

use anyhow::{Context, Result};
use integration_tests::{
    command,
    origin::{Fault, Gate, Origin, Resource},
    proxy::Settings,
};
use tokio::task::JoinSet;

use super::{Setup, path, run};

#[tokio::test]
async fn http2_streams_under_way_end_and_health_is_answered_until_then() -> Result<()> {
    let mut setup = Setup::start(&[]).await?;
    let gate = Gate::closed();
    let content = vec![3; 1 << 20];
    let held = Fault::HoldBody(1000, gate.clone());
    setup
        .origin
        .serve("/a", Resource::cacheable(content.clone()).fault(held));
    let got = setup.folder.path().join("got");
    let argv: Vec<String> = [
        "curl",
        "--silent",
        "--http2",
        "--cacert",
        path(&setup.pair.certificate)?,
        "--output",
        path(&got)?,
        &setup.url()?,
    ]
    .map(str::to_owned)
    .to_vec();
    let mut clients = JoinSet::new();
    clients.spawn_blocking(move || command::ok(&argv));
    setup.origin.wait_for_requests("/a", 1).await?;
    setup.proxy.terminate()?;
    setup.proxy.wait_for_log("stopping").await?;
    let health = setup.proxy.admin_client().get("/-/healthz").send().await?;
    assert_eq!(health.status, 503, "whoever balances load sends nobody any more");
    gate.open();
    clients.join_next().await.context("no client")???;
    assert!(fs::read(&got)? == content);
    let status = setup.proxy.ended().await?;
    assert!(status.success(), "{status}");
    Ok(())
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() -> Result<()> {
    let mut setup = Setup::start(&[]).await?;
    let gate = Gate::closed();
    let held = Fault::HoldBody(1000, gate.clone());
    setup
        .origin
        .serve("/a", Resource::cacheable(vec![3; 1 << 20]).fault(held));
    let mut client = setup.proxy.client().get("/files/a").send().await?;
    client.read_at_least(1000).await?;
    setup.proxy.terminate()?;
    setup.proxy.wait_for_log("stopping").await?;
    setup.proxy.terminate()?;
    assert_eq!(setup.proxy.ended().await?.code(), Some(75));
    assert!(!client.finish().await?.looks_whole);
    Ok(())
}

#[tokio::test]
async fn operators_of_the_group_use_a_unix_socket_that_goes_with_the_process() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("admin.sock");
    let file = folder.path().join("proxy.toml");
    let text = format!("[listen]\nadmin_socket = \"{}\"\n", path(&socket)?);
    kato_shared::durable::write(&file, text.as_bytes(), 0o600)?;
    let settings = Settings::new(&folder.path().join("cache")).arguments(&["--config", path(&file)?]);
    let mut proxy = settings.start().await?;
    assert_eq!(fs::metadata(&socket)?.permissions().mode() & 0o777, 0o660);
    for page in ["/-/healthz", "/-/api/stats"] {
        let url = format!("http://localhost{page}");
        let argv = [
            "curl",
            "--silent",
            "--fail",
            "--unix-socket",
            path(&socket)?,
            &url,
        ];
        assert!(run(&argv).await?.starts_with('{'), "{page}");
    }
    // What a killed process leaves behind is in nobody's way.
    proxy.kill().await?;
    assert!(socket.exists());
    let mut proxy = settings.start().await?;
    proxy.terminate()?;
    proxy.ended().await?;
    assert!(!socket.exists());
    Ok(())
}

#[tokio::test]
async fn ipv6_clients_and_ipv4_clients_share_a_listener() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let origin = Origin::start().await?;
    origin.serve("/a", Resource::cacheable(b"content".to_vec()));
    let proxy = Settings::new(&folder.path().join("cache"))
        .upstream("files", &origin.url("/"))
        .listening_on("[::]:0", "[::1]:0")
        .start()
        .await?;
    assert!(proxy.admin.is_ipv6());
    let port = proxy.data.port();
    for host in ["127.0.0.1", "[::1]"] {
        // An IPv4 client shows itself as ::ffff:127.0.0.1, and is allowed as 127.0.0.1.
        let address = format!("{host}:{port}").parse()?;
        let (_, body) = integration_tests::client::Client::new(address)
            .fetch("/files/a")
            .await?;
        assert_eq!(body, b"content", "{host}");
    }
    Ok(())
}
