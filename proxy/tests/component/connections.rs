//! One connection, several requests.

use crate::{
    Proxy, body, content,
    origin::{Origin, Step, head, reply},
    raw::Raw,
    wait_until,
};

const FRESH: (&str, &str) = ("Cache-Control", "max-age=3600");

#[tokio::test]
async fn rfc9112_s9_3_2_pipelined_requests_are_answered_in_their_order() {
    let origin = Origin::start(|asked| reply("200 OK", &[FRESH], asked.path.as_bytes())).await;
    let proxy = Proxy::start(origin.address).await;
    let mut client = Raw::connect(proxy.address).await;
    let get = |path: &str| format!("GET /o{path} HTTP/1.1\r\nHost: a\r\n\r\n");
    // Three at once, and half of a fourth: hits and misses, then one with content.
    let post = "POST /o/post HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
    let all = [get("/1"), get("/2"), post.to_owned(), get("/1"), get("/3")].concat();
    let (most, rest) = all.split_at(all.len() - 7);
    client.send(most).await;
    for path in ["/1", "/2", "/post", "/1"] {
        let answer = client.answer().await;
        assert_eq!(
            (answer.status, String::from_utf8(answer.body).unwrap().as_str()),
            (200, path)
        );
    }
    client.send(rest).await;
    assert_eq!(client.answer().await.body, b"/3");
    assert_eq!(origin.count("/1"), 1);
}

#[tokio::test]
async fn rfc9112_s9_6_a_connection_is_closed_when_the_client_says_so_and_not_before() {
    let origin = Origin::start(|_| reply("200 OK", &[FRESH], b"content")).await;
    let proxy = Proxy::start(origin.address).await;
    let mut client = Raw::connect(proxy.address).await;
    for _ in 0..3 {
        client.send("GET /o/a HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(client.answer().await.body, b"content");
    }
    client
        .send("GET /o/a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .await;
    let last = client.answer().await;
    assert_eq!(
        (last.field("connection"), last.body.as_slice()),
        ("close", &b"content"[..])
    );
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn rfc9110_s9_3_2_head_says_what_get_would_and_has_no_content() {
    let whole = content(100_000);
    let sent = whole.clone();
    let origin = Origin::start(move |_| reply("200 OK", &[FRESH, ("ETag", "\"x\"")], &sent)).await;
    let proxy = Proxy::start(origin.address).await;
    let mut client = Raw::connect(proxy.address).await;
    client.send("GET /o/a HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(client.answer().await.body == whole);
    // The next answer on the connection would begin with whatever content the first had.
    client.send("HEAD /o/a HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let head = client.answer_to("HEAD").await;
    assert_eq!(head.status, 200);
    assert_eq!(
        (head.field("content-length"), head.field("etag")),
        ("100000", "\"x\"")
    );
    client.send("GET /o/a HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(client.answer().await.body == whole);
    assert_eq!(origin.asked().len(), 1);
}

#[tokio::test]
async fn one_connection_to_an_origin_carries_plain_answers_and_difficult_ones_and_is_left_when_it_says_too_much()
 {
    let origin = Origin::start(|asked| {
        let plain = reply("200 OK", &[FRESH], asked.path.as_bytes());
        let Step::Send(bytes) = &plain[0] else {
            return plain;
        };
        match asked.path.as_str() {
            "/more" => vec![Step::Send([bytes, &bytes[..]].concat())],
            "/split" => {
                let (first, rest) = bytes.split_at(13);
                vec![Step::Send(first.to_vec()), Step::Send(rest.to_vec())]
            }
            "/chunked" => {
                let head = head("200 OK", &[FRESH, ("Transfer-Encoding", "chunked")]);
                let chunks = b"\r\n2\r\n/c\r\n6\r\nhunked\r\n0\r\n\r\n";
                vec![Step::Send([head.as_bytes(), chunks].concat())]
            }
            "/hints" => {
                let hints = head("103 Early Hints", &[("Link", "</a>; rel=preload")]);
                vec![Step::Send([hints.as_bytes(), b"\r\n", bytes].concat())]
            }
            _ => plain,
        }
    })
    .await;
    let proxy = Proxy::start(origin.address).await;
    for path in ["/more", "/a", "/split", "/b", "/chunked", "/c", "/hints", "/d"] {
        assert_eq!(body(proxy.get(path).await).await, path.as_bytes(), "{path}");
        wait_until("it is stored", async || {
            proxy.stats().await.stored_responses >= origin.asked().len() as u64
        })
        .await;
    }
    let connections: Vec<usize> = origin.asked().iter().map(|asked| asked.connection).collect();
    assert_eq!(connections, [0, 1, 1, 1, 1, 1, 1, 1]);
}
