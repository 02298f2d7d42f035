//! Clients that want too much, too slowly, or all at once.

use std::{sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpSocket,
    sync::Semaphore,
    time::{Instant, interval, timeout},
};

use crate::{
    DEADLINE, Proxy, body, content, field,
    origin::{Origin, Step, head, reply},
    raw::Raw,
    wait_until,
};

const FRESH: (&str, &str) = ("Cache-Control", "max-age=3600");
const GET: &str = "GET /o/a HTTP/1.1\r\nHost: a\r\n\r\n";

/// An origin whose answers begin and then wait at the gate.
async fn held() -> (Origin, Arc<Semaphore>) {
    let gate = Arc::new(Semaphore::new(0));
    let at = Arc::clone(&gate);
    let origin = Origin::start(move |_| {
        let head = format!("{}Content-Length: 4\r\n\r\nab", head("200 OK", &[FRESH]));
        vec![
            Step::Send(head.into_bytes()),
            Step::Wait(Arc::clone(&at)),
            Step::Send(b"cd".to_vec()),
        ]
    })
    .await;
    (origin, gate)
}

#[tokio::test]
async fn a_client_that_drips_its_head_loses_its_connection() {
    let origin = Origin::start(|_| reply("200 OK", &[FRESH], b"content")).await;
    let proxy = Proxy::with(origin.address, |settings| {
        settings.limits.header_timeout = "300ms".parse().unwrap();
        settings.limits.connections = 1;
    })
    .await;
    // The second head of a connection has no more time than the first.
    for whole in ["", GET] {
        let mut slow = Raw::connect(proxy.address).await;
        slow.send(whole).await;
        if !whole.is_empty() {
            assert_eq!(slow.answer().await.status, 200);
        }
        slow.send("GET /o/a HTTP/1.1\r\nHost").await;
        assert!(slow.is_closed().await);
    }
    assert_eq!(proxy.get("/a").await.status(), 200, "the permit came back");
}

#[tokio::test]
async fn p19_a_client_with_its_share_of_connections_is_turned_away_and_others_are_not() {
    let origin = Origin::start(|_| reply("200 OK", &[FRESH], b"content")).await;
    let proxy = Proxy::with(origin.address, |settings| {
        settings.limits.connections_per_client = 2;
    })
    .await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut client = Raw::connect(proxy.address).await;
        client.send(GET).await;
        assert_eq!(client.answer().await.status, 200);
        held.push(client);
    }
    let mut further = Raw::connect(proxy.address).await;
    let refused = further.answer().await;
    assert_eq!(refused.status, 503);
    assert_eq!(refused.field("retry-after"), "1");
    assert!(refused.field("cache-status").contains("detail=overloaded"));
    assert!(further.is_closed().await);
    // Another address of this host is another client.
    let other = TcpSocket::new_v4().unwrap();
    other.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let mut other = Raw::over(other.connect(proxy.address).await.unwrap());
    other.send(GET).await;
    assert_eq!(other.answer().await.status, 200);
    // A place comes back when a connection has ended.
    drop(held);
    wait_until("a place", async || {
        let mut client = Raw::connect(proxy.address).await.stream;
        let mut said = [0; 12];
        // Who is turned away while speaking may be cut off before the answer.
        let is_answered =
            client.write_all(GET.as_bytes()).await.is_ok() && client.read_exact(&mut said).await.is_ok();
        is_answered && said == *b"HTTP/1.1 200"
    })
    .await;
}

#[tokio::test]
async fn a_connection_without_requests_is_closed_and_one_with_an_answer_under_way_is_not() {
    let (origin, gate) = held().await;
    let proxy = Proxy::with(origin.address, |settings| {
        settings.limits.idle_timeout = "300ms".parse().unwrap();
    })
    .await;
    let mut client = Raw::connect(proxy.address).await;
    client.send(GET).await;
    // Twice the idle time passes while the answer is under way.
    let mut idle = Raw::connect(proxy.address).await;
    for _ in 0..2 {
        idle.send("GET /none HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(idle.answer().await.status, 404);
        assert!(idle.is_closed().await);
        idle = Raw::connect(proxy.address).await;
    }
    gate.add_permits(1);
    assert_eq!(client.answer().await.body, b"abcd");
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn a_client_that_stops_reading_loses_its_connection_and_holds_nothing() {
    let whole = content(32 << 20);
    let sent = whole.clone();
    let origin = Origin::start(move |_| reply("200 OK", &[FRESH], &sent)).await;
    let proxy = Proxy::with(origin.address, |settings| {
        settings.limits.client_progress_timeout = "700ms".parse().unwrap();
        settings.limits.connections = 1;
    })
    .await;
    // On the way through, and out of the store.
    for _ in 0..2 {
        let mut stopped = Raw::connect(proxy.address).await;
        stopped.send(GET).await;
        stopped.stream.read_u8().await.unwrap();
        // The only permit is its: this is answered when it has lost its connection.
        let mut next = Raw::connect(proxy.address).await;
        next.send(GET).await;
        assert!(next.answer().await.body == whole);
        let mut rest = Vec::new();
        let ended = timeout(DEADLINE, stopped.stream.read_to_end(&mut rest))
            .await
            .unwrap();
        assert!(ended.is_err() || rest.len() < whole.len());
    }
}

#[tokio::test]
async fn a_client_that_is_slow_and_moves_stays() {
    let whole = content(1 << 20);
    let sent = whole.clone();
    let origin = Origin::start(move |_| reply("200 OK", &[FRESH], &sent)).await;
    let proxy = Proxy::with(origin.address, |settings| {
        settings.limits.client_progress_timeout = "1s".parse().unwrap();
        settings.limits.idle_timeout = "1s".parse().unwrap();
    })
    .await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 << 10).unwrap();
    let mut client = socket.connect(proxy.address).await.unwrap();
    client
        .write_all(b"GET /o/a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let begun = Instant::now();
    let mut pace = interval(Duration::from_millis(100));
    let mut received = Vec::new();
    let mut buffer = vec![0; 32 << 10];
    loop {
        pace.tick().await;
        match timeout(DEADLINE, client.read(&mut buffer))
            .await
            .unwrap()
            .unwrap()
        {
            0 => break,
            count => received.extend_from_slice(&buffer[..count]),
        }
    }
    assert!(received.ends_with(&whole));
    assert!(
        begun.elapsed() > Duration::from_secs(2),
        "it took longer than the timeouts"
    );
}

#[tokio::test]
async fn requests_beyond_the_bound_are_told_to_come_again() {
    type Change = fn(&mut kato_proxy::settings::Limits);
    let cases: [Change; 2] = [
        |limits| limits.requests = 1,
        |limits| limits.requests_per_client = 1,
    ];
    for change in cases {
        let (origin, gate) = held().await;
        let proxy = Proxy::with(origin.address, |settings| {
            settings.limits.queue_wait = "50ms".parse().unwrap();
            change(&mut settings.limits);
        })
        .await;
        let first = proxy.get("/a").await;
        // Its head is here, its body is not: it is still being answered.
        let refused = proxy.get("/b").await;
        assert_eq!(refused.status(), 503);
        assert!(field(&refused, "retry-after").parse::<u32>().unwrap() > 0);
        assert!(field(&refused, "cache-status").contains("detail=overloaded"));
        gate.add_permits(2);
        assert_eq!(body(first).await, b"abcd");
        assert_eq!(body(proxy.get("/b").await).await, b"abcd");
    }
}

#[tokio::test]
async fn rfc9110_s15_5_14_content_beyond_the_bound_is_refused() {
    let origin = Origin::start(|asked| reply("200 OK", &[], asked.method.as_bytes())).await;
    let proxy = Proxy::with(origin.address, |settings| {
        settings.limits.request_content = "1KiB".parse().unwrap();
    })
    .await;
    for (length, status) in [(1024, 200), (1025, 413)] {
        let posted = proxy.client.post(proxy.url("/a")).body(vec![0; length]).send();
        let answer = timeout(DEADLINE, posted).await.unwrap().unwrap();
        assert_eq!(answer.status(), status, "{length}");
    }
    assert_eq!(origin.asked().len(), 1);
}
