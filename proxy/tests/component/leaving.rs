//! Clients that leave before they have their answer, and servers that do.

use std::sync::Arc;

use kato_proxy::{fill::AbortRule, settings::Settings};
use tokio::{io::AsyncWriteExt, sync::Semaphore, time::timeout};

use crate::{
    DEADLINE, Proxy,
    origin::{Origin, Step, reply},
    raw::Raw,
    wait_until,
};

const FRESH: (&str, &str) = ("Cache-Control", "max-age=3600");

/// An origin that answers about `/held` when the gate is open, and at once about anything else.
async fn holding() -> (Origin, Arc<Semaphore>) {
    let gate = Arc::new(Semaphore::new(0));
    let at = Arc::clone(&gate);
    let origin = Origin::start(move |asked| {
        let mut steps = reply("200 OK", &[FRESH], b"content");
        if asked.path.starts_with("/held") {
            steps.insert(0, Step::Wait(Arc::clone(&at)));
        }
        steps
    })
    .await;
    (origin, gate)
}

/// One request at a time; the next waits for the end of the one before.
fn one_at_a_time(settings: &mut Settings) {
    settings.limits.requests = 1;
    settings.limits.queue_wait = "20s".parse().unwrap();
}

/// The connection has asked, and the origin is about to answer.
async fn asks(client: &mut Raw, origin: &Origin, (path, fields): (&str, &str)) {
    let asked = origin.count(path);
    client
        .send(&format!("GET /o{path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n"))
        .await;
    wait_until("the origin is asked", async || origin.count(path) > asked).await;
}

#[tokio::test]
async fn a_client_that_left_before_its_answer_frees_its_place() {
    let (origin, _gate) = holding().await;
    let proxy = Proxy::with(origin.address, one_at_a_time).await;
    // By the short way, and by hyper.
    for (path, fields) in [("/held/1", ""), ("/held/2", "Connection: close\r\n")] {
        let mut client = Raw::connect(proxy.address).await;
        asks(&mut client, &origin, (path, fields)).await;
        drop(client);
        // The only place is its.
        let next = timeout(DEADLINE, proxy.get("/other")).await.unwrap();
        assert_eq!(next.status(), 200, "{fields}");
    }
}

#[tokio::test]
async fn rfc9293_s3_6_a_client_that_only_says_nothing_more_gets_its_answer() {
    let (origin, gate) = holding().await;
    let proxy = Proxy::with(origin.address, one_at_a_time).await;
    for (path, fields) in [("/held/1", ""), ("/held/2", "Connection: close\r\n")] {
        let mut client = Raw::connect(proxy.address).await;
        asks(&mut client, &origin, (path, fields)).await;
        client.stream.shutdown().await.unwrap();
        // By then it was looked at, and its kernel has not said that it is gone.
        let interim = client.answer_to("HEAD").await;
        assert_eq!(interim.status, 100, "{fields}");
        gate.add_permits(1);
        let answer = client.answer().await;
        assert_eq!(
            (answer.status, &answer.body[..]),
            (200, &b"content"[..]),
            "{fields}"
        );
        assert!(client.is_closed().await);
    }
}

#[tokio::test]
async fn p04_what_nobody_waits_for_any_more_is_not_waited_for_by_rule() {
    for (rule, is_given_up) in [(AbortRule::Cancel, true), (AbortRule::Continue, false)] {
        let (origin, gate) = holding().await;
        let proxy = Proxy::with(origin.address, |settings| {
            settings.upstreams[0].on_abort = rule;
        })
        .await;
        let mut first = Raw::connect(proxy.address).await;
        asks(&mut first, &origin, ("/held", "")).await;
        drop(first);
        if is_given_up {
            wait_until("it is given up", async || deserted(&proxy).await).await;
        } else {
            gate.add_permits(1);
            wait_until("it is stored all the same", async || {
                proxy.stats().await.stored_responses == 1
            })
            .await;
            assert!(!deserted(&proxy).await);
        }
        assert_eq!(origin.count("/held"), 1);
    }
}

async fn deserted(proxy: &Proxy) -> bool {
    let url = format!("http://{}/-/metrics", proxy.admin);
    let page = proxy.client.get(url).send().await.unwrap().text().await.unwrap();
    page.lines()
        .any(|line| line.contains("\"deserted\"") && line.ends_with(" 1"))
}

#[tokio::test]
async fn what_has_no_answer_when_the_grace_is_over_is_told_so() {
    for (method, fields) in [("GET", ""), ("HEAD", ""), ("GET", "Connection: close\r\n")] {
        let (origin, _gate) = holding().await;
        let proxy = Proxy::with(origin.address, |settings| {
            settings.limits.shutdown_grace = "100ms".parse().unwrap();
        })
        .await;
        let mut client = Raw::connect(proxy.address).await;
        let head = format!("{method} /o/held HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        client.send(&head).await;
        wait_until("the origin is asked", async || origin.count("/held") == 1).await;
        let (_folder, answer) = tokio::join!(proxy.stop(), client.answer_to(method));
        assert_eq!(answer.status, 503, "{head}");
        assert_eq!(answer.field("connection"), "close", "{head}");
        assert_eq!(answer.field("retry-after"), "5", "{head}");
        assert!(answer.field("cache-status").contains("stopping"), "{head}");
        assert_eq!(
            String::from_utf8_lossy(&answer.body).contains("urn:kato:problem:stopping"),
            method == "GET",
        );
        assert!(client.is_closed().await, "{head}");
    }
}
