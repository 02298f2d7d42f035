//! Settings that are replaced while serving.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::{
    Proxy, body, content,
    origin::{Origin, Step, head, reply},
    raw::Raw,
};

const FRESH: (&str, &str) = ("Cache-Control", "max-age=3600");

#[tokio::test]
async fn a_download_under_way_ends_and_a_new_upstream_is_served() {
    let whole = content(256 << 10);
    let gate = Arc::new(Semaphore::new(0));
    let (at, sent) = (Arc::clone(&gate), whole.clone());
    let origin = Origin::start(move |_| {
        let head = format!(
            "{}Content-Length: {}\r\n\r\n",
            head("200 OK", &[FRESH]),
            sent.len()
        );
        let (first, second) = sent.split_at(1000);
        vec![
            Step::Send([head.as_bytes(), first].concat()),
            Step::Wait(Arc::clone(&at)),
            Step::Send(second.to_vec()),
        ]
    })
    .await;
    let other = Origin::start(|_| reply("200 OK", &[FRESH], b"of the other")).await;
    let proxy = Proxy::start(origin.address).await;
    let under_way = proxy.get("/big").await;

    let mut next = proxy.settings.clone();
    next.upstreams = vec![format!("p=http://{}/", other.address).parse().unwrap()];
    assert!(proxy.reloader.apply(next).await.unwrap().is_empty());

    let url = format!("http://{}/p/a", proxy.address);
    assert_eq!(
        body(proxy.client.get(url).send().await.unwrap()).await,
        b"of the other"
    );
    assert_eq!(proxy.get("/new").await.status(), 404, "its upstream is gone");
    gate.add_permits(1);
    assert!(body(under_way).await == whole);
    let known: Vec<_> = proxy
        .stats()
        .await
        .upstreams
        .into_iter()
        .map(|one| one.name)
        .collect();
    assert_eq!(known, ["o", "p"]);
}

#[tokio::test]
async fn settings_that_contradict_themselves_change_nothing() {
    let origin = Origin::start(|_| reply("200 OK", &[FRESH], b"content")).await;
    let proxy = Proxy::start(origin.address).await;
    let mut bad = proxy.settings.clone();
    bad.upstreams.push(bad.upstreams[0].clone());
    bad.access.clients.clear();
    let error = proxy.reloader.apply(bad).await.unwrap_err();
    assert!(
        error.to_string().contains("two upstreams are named `o`"),
        "{error}"
    );
    assert_eq!(body(proxy.get("/a").await).await, b"content");
}

#[tokio::test]
async fn who_may_ask_changes_for_open_connections_too() {
    let origin = Origin::start(|_| reply("200 OK", &[FRESH], b"content")).await;
    let proxy = Proxy::start(origin.address).await;
    let mut client = Raw::connect(proxy.address).await;
    client.send("GET /o/a HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.answer().await.status, 200);
    let mut next = proxy.settings.clone();
    next.access.clients.clear();
    proxy.reloader.apply(next).await.unwrap();
    client.send("GET /o/a HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.answer().await.status, 403);
}

#[tokio::test]
async fn what_needs_a_restart_is_named_and_stays() {
    let origin = Origin::start(|_| reply("200 OK", &[FRESH], b"content")).await;
    let proxy = Proxy::start(origin.address).await;
    let mut next = proxy.settings.clone();
    next.listen.data.set_port(1);
    next.cache.dir = "/nowhere".into();
    next.offline = true;
    let kept = proxy.reloader.apply(next).await.unwrap();
    assert_eq!(kept, ["listen.data", "cache.dir"]);
    assert_eq!(
        proxy.get("/a").await.status(),
        404,
        "what can be replaced is in force"
    );
}

#[tokio::test]
async fn more_connections_are_served_at_once_when_more_are_allowed() {
    let origin = Origin::start(|_| reply("200 OK", &[FRESH], b"content")).await;
    let proxy = Proxy::with(origin.address, |settings| settings.limits.connections = 1).await;
    let ask = "GET /o/a HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut first = Raw::connect(proxy.address).await;
    first.send(ask).await;
    assert_eq!(first.answer().await.status, 200);
    // The only permit is held: the second waits in the kernel's queue.
    let mut second = Raw::connect(proxy.address).await;
    second.send(ask).await;
    let mut next = proxy.settings.clone();
    next.limits.connections = 2;
    proxy.reloader.apply(next).await.unwrap();
    assert_eq!(second.answer().await.status, 200);
}
