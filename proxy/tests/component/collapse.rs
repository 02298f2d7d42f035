//! One origin request for all, each at its own speed, nobody hostage of another.

use std::sync::Arc;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Semaphore,
    task::JoinSet,
    time::timeout,
};

use crate::{
    DEADLINE, Proxy, body, content, field,
    origin::{Origin, Step, head, reply},
    wait_until,
};

const FRESH: (&str, &str) = ("Cache-Control", "max-age=3600");

/// An origin that sends the first half of `whole`, waits at the gate, and sends the rest.
async fn halting(whole: Vec<u8>) -> (Origin, Arc<Semaphore>) {
    let gate = Arc::new(Semaphore::new(0));
    let at = Arc::clone(&gate);
    let origin = Origin::start(move |_| {
        let (first, second) = whole.split_at(whole.len() / 2);
        let head = format!(
            "{}Content-Length: {}\r\n\r\n",
            head("200 OK", &[FRESH]),
            whole.len()
        );
        vec![
            Step::Send([head.as_bytes(), first].concat()),
            Step::Wait(Arc::clone(&at)),
            Step::Send(second.to_vec()),
        ]
    })
    .await;
    (origin, gate)
}

#[tokio::test]
async fn p02_all_clients_stream_from_one_origin_request_while_it_is_under_way() {
    let whole = content(1 << 20);
    let (origin, gate) = halting(whole.clone()).await;
    let proxy = Proxy::start(origin.address).await;
    let mut responses = Vec::new();
    for _ in 0..8 {
        let mut response = proxy.get("/big").await;
        // The first half is here while the origin still holds the second back.
        let mut received = Vec::new();
        while received.len() < whole.len() / 2 {
            received.extend(
                timeout(DEADLINE, response.chunk())
                    .await
                    .unwrap()
                    .unwrap()
                    .unwrap(),
            );
        }
        responses.push((response, received));
    }
    assert_eq!(origin.count("/big"), 1);
    gate.add_permits(1);
    for (nth, (response, mut received)) in responses.into_iter().enumerate() {
        let said = field(&response, "cache-status").to_owned();
        assert_eq!(said.contains("collapsed"), nth > 0, "{said}");
        received.extend(body(response).await);
        assert!(received == whole, "client {nth} got other bytes");
    }
    let stats = proxy.stats().await;
    assert_eq!((origin.count("/big"), stats.wan_bytes), (1, 1 << 20));
    assert_eq!((stats.requests.miss, stats.requests.collapsed), (1, 7));
}

#[tokio::test]
async fn p04_the_client_that_began_a_download_may_leave() {
    let whole = content(1 << 20);
    let (origin, gate) = halting(whole.clone()).await;
    let proxy = Proxy::start(origin.address).await;
    let leader = proxy.get("/big").await;
    let follower = proxy.get("/big").await;
    drop(leader);
    gate.add_permits(1);
    assert!(body(follower).await == whole);
    assert_eq!(origin.count("/big"), 1);
}

#[tokio::test]
async fn p04_a_download_goes_on_when_every_client_has_left() {
    let whole = content(1 << 20);
    let (origin, gate) = halting(whole.clone()).await;
    let proxy = Proxy::start(origin.address).await;
    drop(proxy.get("/big").await);
    gate.add_permits(1);
    wait_until("the response is stored", async || {
        proxy.stats().await.stored_responses == 1
    })
    .await;
    assert!(body(proxy.get("/big").await).await == whole);
    assert_eq!(origin.count("/big"), 1);
}

#[tokio::test]
async fn p04_followers_are_not_paced_by_a_leader_that_does_not_read() {
    // More than the kernel's buffers hold for a client that reads nothing.
    let whole = content(32 << 20);
    let (origin, gate) = halting(whole.clone()).await;
    gate.add_permits(1);
    let proxy = Proxy::start(origin.address).await;
    let mut leader = TcpStream::connect(proxy.address).await.unwrap();
    leader
        .write_all(b"GET /o/big HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    let mut first = [0_u8; 16];
    leader.read_exact(&mut first).await.unwrap();
    assert!(body(proxy.get("/big").await).await == whole);
    assert_eq!(origin.count("/big"), 1);
}

#[tokio::test]
async fn row_d_a_range_of_a_download_under_way_needs_no_second_one() {
    let whole = content(1 << 20);
    let (origin, gate) = halting(whole.clone()).await;
    let proxy = Proxy::start(origin.address).await;
    let near = proxy.with_fields("/big", &[("range", "bytes=1000-1999")]).await;
    assert_eq!(near.status(), 206);
    assert_eq!(field(&near, "content-range"), "bytes 1000-1999/1048576");
    assert!(body(near).await == whole[1000..2000]);
    let far = proxy.with_fields("/big", &[("range", "bytes=1000000-")]).await;
    gate.add_permits(1);
    assert!(body(far).await == whole[1_000_000..]);
    assert_eq!(origin.count("/big"), 1);
}

#[tokio::test]
async fn what_may_not_be_shared_is_asked_for_by_each_client_itself() {
    let gate = Arc::new(Semaphore::new(0));
    let at = Arc::clone(&gate);
    let origin = Origin::start(move |asked| {
        let who = asked.field("x-who").unwrap_or_default().to_owned();
        let mut steps = vec![Step::Wait(Arc::clone(&at))];
        steps.extend(reply("200 OK", &[("Cache-Control", "private")], who.as_bytes()));
        steps
    })
    .await;
    let proxy = Arc::new(Proxy::start(origin.address).await);
    let mut clients = JoinSet::new();
    for who in ["alice", "bob", "carol"] {
        let proxy = Arc::clone(&proxy);
        clients.spawn(async move { (who, body(proxy.with_fields("/me", &[("x-who", who)]).await).await) });
    }
    gate.add_permits(3);
    while let Some(joined) = clients.join_next().await {
        let (who, got) = joined.unwrap();
        assert_eq!(String::from_utf8_lossy(&got), who);
    }
    assert_eq!(origin.count("/me"), 3);
    assert_eq!(proxy.stats().await.stored_responses, 0);
}

#[tokio::test]
async fn responses_to_authorized_requests_are_not_shared_unless_they_allow_it() {
    let origin = Origin::start(|asked| {
        let fields: &[_] = if asked.path == "/shared" {
            &[("Cache-Control", "public, max-age=60")]
        } else {
            &[FRESH]
        };
        reply(
            "200 OK",
            fields,
            asked.field("authorization").unwrap_or("nobody").as_bytes(),
        )
    })
    .await;
    let proxy = Proxy::start(origin.address).await;
    for (path, second) in [("/own", "Basic b"), ("/shared", "Basic a")] {
        assert_eq!(
            body(proxy.with_fields(path, &[("authorization", "Basic a")]).await).await,
            b"Basic a"
        );
        let got = body(proxy.with_fields(path, &[("authorization", "Basic b")]).await).await;
        assert_eq!(String::from_utf8_lossy(&got), second, "{path}");
    }
}

#[tokio::test]
async fn variants_have_downloads_of_their_own() {
    let origin = Origin::start(|asked| {
        let language = asked.field("accept-language").unwrap_or_default().to_owned();
        reply(
            "200 OK",
            &[FRESH, ("Vary", "Accept-Language")],
            language.as_bytes(),
        )
    })
    .await;
    let proxy = Proxy::start(origin.address).await;
    for _ in 0..2 {
        for language in ["de", "en"] {
            let got = body(proxy.with_fields("/page", &[("accept-language", language)]).await).await;
            assert_eq!(String::from_utf8_lossy(&got), language);
        }
    }
    assert_eq!(origin.count("/page"), 2);
}
