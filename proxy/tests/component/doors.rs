//! Who may ask for what, and by which door.

use reqwest::{Client, Proxy as Via};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    DEADLINE, Proxy, body, field,
    origin::{Origin, reply},
};

const FRESH: (&str, &str) = ("Cache-Control", "max-age=3600");

#[tokio::test]
async fn the_forward_proxy_and_both_mirror_paths_share_one_stored_response() {
    let origin = Origin::start(|_| reply("200 OK", &[FRESH], b"content")).await;
    let proxy = Proxy::start(origin.address).await;
    let through = Via::http(format!("http://{}", proxy.address)).unwrap();
    let forward = Client::builder().proxy(through).build().unwrap();
    let first = forward
        .get(format!("http://{}/a", origin.address))
        .send()
        .await
        .unwrap();
    assert_eq!(body(first).await, b"content");
    assert_eq!(body(proxy.get("/a").await).await, b"content");
    let by_host = format!("http://{}/http/{}/a", proxy.address, origin.address);
    assert_eq!(
        body(proxy.client.get(by_host).send().await.unwrap()).await,
        b"content"
    );
    assert_eq!(origin.asked().len(), 1);
    assert_eq!(
        origin.asked()[0].field("host"),
        Some(origin.address.to_string().as_str())
    );
}

#[tokio::test]
async fn p19_a_host_that_no_upstream_names_is_refused_with_the_remedy() {
    let origin = Origin::start(|_| reply("200 OK", &[FRESH], b"content")).await;
    let other = Origin::start(|_| reply("200 OK", &[FRESH], b"secret")).await;
    let proxy = Proxy::start(origin.address).await;
    let url = format!("http://{}/http/{}/a", proxy.address, other.address);
    let refused = proxy.client.get(url).send().await.unwrap();
    assert_eq!(refused.status(), 403);
    assert!(field(&refused, "cache-status").contains("detail=host-refused"));
    let problem: kato_shared::api::Problem = serde_json::from_slice(&body(refused).await).unwrap();
    assert!(problem.detail.contains(&other.address.to_string()));
    assert!(problem.hint.unwrap().contains("[[upstream]]"));
    assert!(other.asked().is_empty());
}

#[tokio::test]
async fn clients_of_networks_that_are_not_listed_are_refused() {
    let origin = Origin::start(|_| reply("200 OK", &[FRESH], b"content")).await;
    let proxy = Proxy::with(origin.address, |settings| {
        settings.access.clients = vec!["10.0.0.0/8".to_owned().try_into().unwrap()];
    })
    .await;
    assert_eq!(proxy.get("/a").await.status(), 403);
    assert!(origin.asked().is_empty());
}

#[tokio::test]
async fn connect_tunnels_to_configured_hosts_alone() {
    let origin = Origin::start(|_| reply("200 OK", &[], b"through")).await;
    let proxy = Proxy::start(origin.address).await;
    let mut tunnel = TcpStream::connect(proxy.address).await.unwrap();
    let connect = format!("CONNECT {0} HTTP/1.1\r\nHost: {0}\r\n\r\n", origin.address);
    tunnel.write_all(connect.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(timeout(DEADLINE, tunnel.read_u8()).await.unwrap().unwrap());
    }
    assert!(
        head.starts_with(b"HTTP/1.1 200"),
        "{}",
        String::from_utf8_lossy(&head)
    );
    tunnel
        .write_all(b"GET /inside HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    let mut inside = [0_u8; 15];
    timeout(DEADLINE, tunnel.read_exact(&mut inside))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&inside, b"HTTP/1.1 200 OK");
    assert_eq!(origin.count("/inside"), 1);

    let mut refused = TcpStream::connect(proxy.address).await.unwrap();
    refused
        .write_all(b"CONNECT elsewhere.example:443 HTTP/1.1\r\nHost: elsewhere.example\r\n\r\n")
        .await
        .unwrap();
    let mut head = [0_u8; 12];
    timeout(DEADLINE, refused.read_exact(&mut head))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&head, b"HTTP/1.1 403");
}

#[tokio::test]
async fn requests_per_url_and_entries_are_told_by_the_admin_api() {
    let origin = Origin::start(|_| reply("200 OK", &[FRESH], b"content")).await;
    let proxy = Proxy::start(origin.address).await;
    for _ in 0..3 {
        body(proxy.get("/a").await).await;
    }
    let read = async |path: &str| -> serde_json::Value {
        let url = format!("http://{}{path}", proxy.admin);
        let text = body(proxy.client.get(url).send().await.unwrap()).await;
        serde_json::from_slice(&text).unwrap()
    };
    let counted = read("/-/api/requests?prefix=http").await;
    assert_eq!(
        counted["requests"][0]["url"],
        format!("http://{}/a", origin.address)
    );
    assert_eq!(counted["requests"][0]["requests"], 3);
    assert_eq!(counted["requests"][0]["origin_requests"], 1);
    let entries = read("/-/api/entries").await;
    assert_eq!(entries["entries"][0]["length"], 7);
    assert_eq!(entries["entries"].as_array().unwrap().len(), 1);
    assert_eq!(read("/-/healthz").await["status"], "ok");
}

/// What the proxy answers to `request` until it closes the connection.
async fn answer(proxy: &Proxy, request: &str) -> String {
    let mut client = TcpStream::connect(proxy.address).await.unwrap();
    client.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    timeout(DEADLINE, client.read_to_end(&mut answer))
        .await
        .unwrap()
        .unwrap();
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn rfc9112_s3_2_a_request_without_one_valid_host_is_refused() {
    let origin = Origin::start(|_| reply("200 OK", &[FRESH], b"content")).await;
    let proxy = Proxy::start(origin.address).await;
    for (version, hosts, status) in [
        ("1.1", "", "400"),
        ("1.1", "Host: a\r\nHost: a\r\n", "400"),
        ("1.1", "Host: a/b\r\n", "400"),
        ("1.1", "Host: user@a\r\n", "400"),
        ("1.1", "Host:\r\n", "200"),
        ("1.1", "Host: a:80\r\n", "200"),
        ("1.0", "", "200"),
    ] {
        let request = format!("GET /o/a HTTP/{version}\r\n{hosts}Connection: close\r\n\r\n");
        let answer = answer(&proxy, &request).await;
        assert_eq!(
            answer.split(' ').nth(1),
            Some(status),
            "{version} {hosts:?}: {answer}"
        );
    }
}

#[tokio::test]
async fn a_client_that_stops_sending_its_content_is_given_up() {
    let origin = Origin::start(|_| reply("200 OK", &[], b"content")).await;
    let proxy = Proxy::with(origin.address, |settings| {
        settings.limits.progress_timeout = "200ms".parse().unwrap();
    })
    .await;
    let request = "POST /o/a HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nbeginning";
    let answer = answer(&proxy, request).await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert!(origin.asked().is_empty());
}

#[tokio::test]
async fn a_request_head_that_is_too_large_is_refused_before_it_fills_the_memory() {
    let origin = Origin::start(|_| reply("200 OK", &[FRESH], b"content")).await;
    let proxy = Proxy::start(origin.address).await;
    // Of the larger one no more is sent than is taken, so that the answer is not lost in a reset.
    for (length, status) in [(64 << 10, "200"), (128 << 10, "431")] {
        let field = "a".repeat(length);
        let request = format!("GET /o/a HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX: {field}\r\n\r\n");
        let answer = answer(&proxy, &request[..request.len().min(128 << 10)]).await;
        assert_eq!(answer.split(' ').nth(1), Some(status), "{length}: {answer}");
    }
}

#[tokio::test]
async fn a_web_page_can_purge_nothing() {
    let origin = Origin::start(|_| reply("200 OK", &[FRESH], b"content")).await;
    let proxy = Proxy::start(origin.address).await;
    let url = format!("http://{}/-/api/purge?prefix=http", proxy.admin);
    let guarded = || proxy.client.post(&url).header("kato-admin", "1");
    let by_page = guarded().header("Origin", "http://page.example");
    assert_eq!(by_page.send().await.unwrap().status(), 403);
    assert_eq!(proxy.client.post(&url).send().await.unwrap().status(), 403);
    assert_eq!(guarded().send().await.unwrap().status(), 200);
}
