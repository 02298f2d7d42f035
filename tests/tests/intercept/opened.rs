//! What goes through an opened CONNECT.

use std::{fs, time::Duration};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::Request;
use http_body_util::Empty;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use integration_tests::origin::{Fault, Gate, Resource};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::timeout,
};

use crate::site::{SOON, Site, run, text};

#[tokio::test]
async fn p07_what_curl_fetches_by_connect_is_stored_and_found_by_every_door() -> Result<()> {
    let site = Site::start("").await?;
    site.serve(b"content");
    let ca = site.ca().await?;
    for version in ["--http1.1", "--http2"] {
        let said = site.curl("localhost", &["--cacert", &ca, version]).await?;
        let expected = if version == "--http2" {
            "content 2 200"
        } else {
            "content 1.1 200"
        };
        assert_eq!(said, expected);
    }
    let authority = format!("localhost:{}", site.port);
    for path in [
        "/opened/a".to_owned(),
        format!("/https/{authority}/a"),
        format!("https://{authority}/a"),
    ] {
        let (answer, body) = site.proxy.client().fetch(&path).await?;
        assert_eq!(body, b"content", "{path}");
        assert!(
            answer.cache_status().contains("; hit"),
            "{path}: {}",
            answer.cache_status()
        );
    }
    assert_eq!(site.asked(), 1);
    let stats = site.proxy.stats().await?;
    assert_eq!(stats.tunnel_bytes, 0, "nothing went past the store");
    // What came by another door is a hit inside.
    site.origin
        .serve("/b", Resource::cacheable(b"of the mirror path".to_vec()));
    site.proxy.client().fetch("/opened/b").await?;
    let url = format!("https://{authority}/b");
    let proxy = format!("http://{}", site.proxy.data);
    let head = run(&[
        "curl",
        "--silent",
        "--include",
        "--cacert",
        &ca,
        "--proxy",
        &proxy,
        &url,
    ])
    .await?;
    assert!(
        head.contains("; hit") && head.ends_with("of the mirror path"),
        "{head}"
    );
    assert_eq!(site.origin.requests("/b").len(), 1);
    Ok(())
}

#[tokio::test]
async fn p07_what_is_not_opened_goes_through_a_tunnel_and_is_counted_as_past_the_store() -> Result<()> {
    let site = Site::start("").await?;
    site.serve(&vec![b'x'; 50_000]);
    let origin_ca = site.file("origin-ca.pem")?;
    for asked in 1..=2 {
        let said = site.curl("127.0.0.1", &["--cacert", &origin_ca]).await?;
        assert!(said.ends_with(" 200"), "{}", &said[said.len() - 10..]);
        assert_eq!(site.asked(), asked, "a tunnel keeps nothing");
    }
    site.proxy
        .wait_for_stats(|stats| {
            let of = |name: &str| stats.upstreams.iter().find(|upstream| upstream.name == name);
            let bytes = |name: &str| of(name).map_or(0, |upstream| upstream.tunnel_bytes);
            bytes("tunnelled") > 100_000 && bytes("opened") == 0 && stats.tunnel_bytes > 100_000
        })
        .await?;
    let (_, page) = site.proxy.admin_client().fetch("/-/metrics").await?;
    let page = String::from_utf8(page)?;
    assert!(
        page.contains("kato_proxy_upstream_tunnel_bytes_total{upstream=\"opened\"} 0"),
        "{page}"
    );
    Ok(())
}

#[tokio::test]
async fn what_is_stored_is_served_inside_with_the_origin_off_and_offline() -> Result<()> {
    let mut site = Site::start("").await?;
    site.serve(b"content");
    let ca = site.ca().await?;
    assert_eq!(site.curl("localhost", &["--cacert", &ca]).await?, "content 2 200");
    let stored = site.proxy.client().get("/opened/a");
    site.proxy.wait_until_stored(&stored, b"content").await?;
    site.origin.stop().await;
    site.restart(&["--offline"]).await?;
    // The authority is the one of before: clients need not be visited again.
    assert_eq!(site.curl("localhost", &["--cacert", &ca]).await?, "content 2 200");
    let said = site.curl("127.0.0.1", &["--cacert", &ca]).await;
    assert!(said.is_err(), "a tunnel needs its host");
    Ok(())
}

#[tokio::test]
async fn connect_is_opened_behind_tls_to_the_proxy_too() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (certificate, key) = (
        text(&folder.path().join("crt"))?,
        text(&folder.path().join("key"))?,
    );
    run(&[
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=cache",
        "-addext",
        "subjectAltName=IP:127.0.0.1",
        "-keyout",
        &key,
        "-out",
        &certificate,
    ])
    .await?;
    let tls = [
        "--listen-tls",
        "127.0.0.1:0",
        "--tls-certificate",
        &certificate,
        "--tls-key",
        &key,
    ];
    let site = Site::start_with("", &tls).await?;
    site.serve(b"content");
    let ca = site.ca().await?;
    let proxy = format!("https://{}", site.proxy.tls.context("no TLS")?);
    // The last --proxy counts.
    let more = ["--proxy", &proxy, "--proxy-cacert", &certificate, "--cacert", &ca];
    assert_eq!(site.curl("localhost", &more).await?, "content 2 200");
    assert_eq!(site.asked(), 1);
    Ok(())
}

#[tokio::test]
async fn connect_is_opened_on_a_stream_of_http2_too_which_outlives_the_idle_time() -> Result<()> {
    let site =
        Site::start("[limits]\nidle_timeout = \"200ms\"\nclient_progress_timeout = \"200ms\"\n").await?;
    let gate = Gate::closed();
    let held = Resource::cacheable(b"content".to_vec()).fault(Fault::HoldHead(gate.clone()));
    site.origin.serve("/a", held);
    let stream = TokioIo::new(TcpStream::connect(site.proxy.data).await?);
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
    let mut driving = JoinSet::new();
    driving.spawn(connection);
    let authority = format!("localhost:{}", site.port);
    let connect = Request::connect(&authority).body(Empty::<Bytes>::new())?;
    let answer = sender.send_request(connect).await?;
    assert_eq!(answer.status(), 200);
    let mut inside = site
        .tls_over(TokioIo::new(hyper::upgrade::on(answer).await?))
        .await?;
    let request = format!("GET /a HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
    inside.write_all(request.as_bytes()).await?;
    site.origin.wait_for_requests("/a", 1).await?;
    // Longer than the outer connection may be idle, and then be waited for.
    assert!(
        timeout(Duration::from_secs(1), inside.read_u8()).await.is_err(),
        "nothing has come"
    );
    gate.open();
    let mut answer = Vec::new();
    timeout(SOON, inside.read_to_end(&mut answer)).await??;
    assert!(
        answer.ends_with(b"content"),
        "{}",
        String::from_utf8_lossy(&answer)
    );
    Ok(())
}

#[tokio::test]
async fn a_large_body_and_ranges_of_it_are_whole_by_either_protocol() -> Result<()> {
    let site = Site::start("").await?;
    let content: Vec<u8> = (0_u32..1_000_000).flat_map(u32::to_le_bytes).collect();
    site.serve(&content);
    let ca = site.ca().await?;
    let got = site.file("got")?;
    for version in ["--http2", "--http1.1"] {
        site.curl("localhost", &["--cacert", &ca, version, "--output", &got])
            .await?;
        assert!(fs::read(&got)? == content, "{version}");
        let range = ["--cacert", &ca, version, "--range", "3000000-", "--output", &got];
        assert!(site.curl("localhost", &range).await?.ends_with(" 206"));
        assert!(fs::read(&got)? == content[3_000_000..], "{version}");
    }
    assert_eq!(site.asked(), 1);
    Ok(())
}

#[tokio::test]
async fn settings_read_again_change_what_is_opened_and_break_no_download() -> Result<()> {
    let site = Site::start("").await?;
    let gate = Gate::closed();
    let content = vec![7; 1 << 20];
    let held = Resource::cacheable(content.clone()).fault(Fault::HoldBody(1000, gate.clone()));
    site.origin.serve("/a", held);
    let (ca, origin_ca) = (site.ca().await?, site.file("origin-ca.pem")?);
    let mut inside = site.inside().await?;
    let request = format!(
        "GET /a HTTP/1.1\r\nHost: localhost:{}\r\nConnection: close\r\n\r\n",
        site.port
    );
    inside.write_all(request.as_bytes()).await?;
    site.origin.wait_for_requests("/a", 1).await?;

    site.configure("", [false, false])?;
    site.proxy.reload()?;
    site.proxy.wait_for_log("are in force").await?;
    gate.open();
    let mut answer = Vec::new();
    timeout(SOON, inside.read_to_end(&mut answer)).await??;
    assert!(answer.ends_with(&content), "the download went on");
    // From now on localhost is what it was to its clients: the origin itself.
    assert!(site.curl("localhost", &["--cacert", &ca]).await.is_err());
    let said = site
        .curl(
            "localhost",
            &["--cacert", &origin_ca, "--output", &site.file("got")?],
        )
        .await?;
    assert!(said.ends_with(" 200"), "{said}");
    let (answer, _) = site.proxy.client().fetch("/-/ca.crt").await?;
    assert_eq!(answer.status, 404, "nothing is opened");
    Ok(())
}

#[tokio::test]
async fn fifty_connections_at_once_cost_the_origin_one_request() -> Result<()> {
    let site = Site::start("").await?;
    let gate = Gate::closed();
    let held = Resource::cacheable(b"content".to_vec()).fault(Fault::HoldHead(gate.clone()));
    site.origin.serve("/a", held);
    let mut clients = JoinSet::new();
    for _ in 0..50 {
        let mut inside = site.inside().await?;
        let request = format!(
            "GET /a HTTP/1.1\r\nHost: localhost:{}\r\nConnection: close\r\n\r\n",
            site.port
        );
        inside.write_all(request.as_bytes()).await?;
        clients.spawn(async move {
            let mut answer = Vec::new();
            timeout(SOON, inside.read_to_end(&mut answer)).await??;
            ensure!(
                answer.ends_with(b"content"),
                "{}",
                String::from_utf8_lossy(&answer)
            );
            anyhow::Ok(())
        });
    }
    site.origin.wait_for_requests("/a", 1).await?;
    gate.open();
    while let Some(client) = clients.join_next().await {
        client??;
    }
    assert_eq!(site.asked(), 1);
    Ok(())
}
