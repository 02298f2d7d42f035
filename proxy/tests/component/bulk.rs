//! Large bodies that are read past hyper: every byte once, and the connection as good as before.

use kato_shared::settings::ByteSize;
use tokio::time::timeout;

use crate::{
    DEADLINE, Proxy, body, content,
    origin::{Origin, Step, head, reply},
    wait_until,
};

const FRESH: (&str, &str) = ("Cache-Control", "max-age=3600");
const TAG: (&str, &str) = ("ETag", "\"one\"");

/// No multiple of any buffer.
const LARGE: usize = (5 << 20) + 4321;

fn connections(origin: &Origin) -> Vec<usize> {
    origin.asked().iter().map(|asked| asked.connection).collect()
}

/// Room for several of them.
async fn proxy(origin: &Origin) -> Proxy {
    Proxy::with(origin.address, |settings| {
        settings.cache.max_size = ByteSize::mib(256);
    })
    .await
}

#[tokio::test]
async fn a_large_body_comes_whole_and_the_next_request_has_its_connection() {
    let whole = content(LARGE);
    let sent = whole.clone();
    let origin = Origin::start(move |_| reply("200 OK", &[FRESH], &sent)).await;
    let proxy = proxy(&origin).await;
    for path in ["/a", "/b", "/c", "/a"] {
        assert!(body(proxy.get(path).await).await == whole, "{path}");
        wait_until("it is stored", async || {
            proxy.stats().await.stored_responses >= origin.asked().len() as u64
        })
        .await;
    }
    assert_eq!(connections(&origin), [0, 0, 0]);
}

#[tokio::test]
async fn a_body_in_pieces_of_any_size_is_put_together_as_it_was() {
    let whole = content(LARGE);
    let sent = whole.clone();
    // Head and part of the body at once; then pieces, the last of one byte.
    let origin = Origin::start(move |_| {
        let head = format!("{}Content-Length: {LARGE}\r\n\r\n", head("200 OK", &[FRESH]));
        let mut steps = vec![Step::Send([head.as_bytes(), &sent[..777]].concat())];
        let mut at = 777;
        for size in [1, 4095, 4096, 70_001, 262_144, 2_000_000] {
            steps.push(Step::Send(sent[at..at + size].to_vec()));
            at += size;
        }
        steps.push(Step::Send(sent[at..LARGE - 1].to_vec()));
        steps.push(Step::Send(sent[LARGE - 1..].to_vec()));
        steps
    })
    .await;
    let proxy = proxy(&origin).await;
    assert!(body(proxy.get("/a").await).await == whole);
    assert!(body(proxy.get("/a").await).await == whole);
    assert_eq!(origin.asked().len(), 1);
}

#[tokio::test]
async fn rfc9112_s9_3_a_connection_that_the_origin_closes_or_that_says_too_much_is_not_used_again() {
    let whole = content(LARGE);
    for (fields, too_much) in [
        (vec![FRESH, ("Connection", "close")], &b""[..]),
        (vec![FRESH], b"HTTP/1.1 200 OK\r\n"),
    ] {
        let sent = whole.clone();
        let origin = Origin::start(move |_| {
            let mut steps = reply("200 OK", &fields, &sent);
            steps.push(Step::Send(too_much.to_vec()));
            steps
        })
        .await;
        let proxy = proxy(&origin).await;
        for path in ["/a", "/b"] {
            assert!(body(proxy.get(path).await).await == whole, "{path}");
        }
        assert_eq!(origin.asked().len(), 2);
        if too_much.is_empty() {
            assert_eq!(connections(&origin), [0, 1]);
        }
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_without_a_validator_never_looks_whole_and_leaves_nothing() {
    let sent = content(LARGE);
    let origin = Origin::start(move |_| {
        let head = format!("{}Content-Length: {LARGE}\r\n\r\n", head("200 OK", &[FRESH]));
        vec![
            Step::Send([head.as_bytes(), &sent[..LARGE - 1]].concat()),
            Step::Break,
        ]
    })
    .await;
    let proxy = proxy(&origin).await;
    let response = proxy.get("/a").await;
    assert!(timeout(DEADLINE, response.bytes()).await.unwrap().is_err());
    assert_eq!(proxy.stats().await.stored_responses, 0);
}

#[tokio::test]
async fn row_e_what_broke_off_is_taken_up_in_bulk_again() {
    let whole = content(LARGE);
    let sent = whole.clone();
    let origin = Origin::start(move |asked| {
        let first = asked.field("range").map_or(0, |range| {
            let first = range.trim_start_matches("bytes=").trim_end_matches('-');
            first.parse::<usize>().unwrap()
        });
        let range = format!("bytes {first}-{}/{LARGE}", LARGE - 1);
        let length = (LARGE - first).to_string();
        let all = [FRESH, TAG, ("Content-Length", &length), ("Content-Range", &range)];
        let (status, fields) = if first == 0 {
            ("200 OK", &all[..3])
        } else {
            ("206 Partial Content", &all[..])
        };
        let end = (first + 2_000_001).min(LARGE);
        let head = format!("{}\r\n", head(status, fields));
        let mut steps = vec![Step::Send([head.as_bytes(), &sent[first..end]].concat())];
        if end < LARGE {
            steps.push(Step::Break);
        }
        steps
    })
    .await;
    let proxy = proxy(&origin).await;
    assert!(body(proxy.get("/a").await).await == whole);
    let ranges: Vec<_> = origin
        .asked()
        .iter()
        .filter_map(|asked| asked.field("range").map(str::to_owned))
        .collect();
    assert_eq!(ranges, ["bytes=2000001-", "bytes=4000002-"]);
    assert!(body(proxy.get("/a").await).await == whole);
    assert_eq!(origin.asked().len(), 3);
}
