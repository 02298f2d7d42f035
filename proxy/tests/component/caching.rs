//! Freshness, validation, conditions, ranges: RFC 9111 and 9110 end to end. The rules themselves are tested in `policy/`.

use crate::{
    Proxy, body, content, field,
    origin::{Origin, Step, head, reply},
    wait_until,
};

const FRESH: (&str, &str) = ("Cache-Control", "max-age=3600");
const TAG: (&str, &str) = ("ETag", "\"one\"");

#[tokio::test]
async fn rfc9111_s4_what_is_fresh_is_answered_without_the_origin() {
    let origin =
        Origin::start(|_| reply("200 OK", &[FRESH, ("X-Twice", "a"), ("X-Twice", "b")], b"content")).await;
    let proxy = Proxy::start(origin.address).await;
    let miss = proxy.get("/a").await;
    assert!(field(&miss, "cache-status").contains("fwd=uri-miss; stored"));
    body(miss).await;
    let hit = proxy.get("/a").await;
    assert!(
        field(&hit, "cache-status").starts_with("kato; hit; ttl=3"),
        "{}",
        field(&hit, "cache-status")
    );
    assert_eq!(field(&hit, "age"), "0");
    assert!(field(&hit, "via").starts_with("1.1 kato-"));
    assert_eq!(hit.headers().get_all("x-twice").iter().count(), 2);
    assert_eq!(body(hit).await, b"content");
    assert_eq!(origin.count("/a"), 1);
}

/// What is small is whole before its client hears anything. Of a large body nobody knows how it will end.
#[tokio::test]
async fn rfc9211_s2_5_stored_is_said_of_what_is_whole_alone() {
    for (length, is_said) in [(1000, true), (3 << 20, false)] {
        let sent = content(length);
        let origin = Origin::start(move |_| reply("200 OK", &[FRESH], &sent)).await;
        let proxy = Proxy::start(origin.address).await;
        let miss = proxy.get("/a").await;
        let said = field(&miss, "cache-status").to_owned();
        assert!(said.contains("fwd=uri-miss"), "{said}");
        assert_eq!(said.contains("stored"), is_said, "{length}: {said}");
        assert_eq!(body(miss).await.len(), length);
        wait_until("a hit", async || {
            let again = proxy.get("/a").await;
            let is_hit = field(&again, "cache-status").contains("; hit");
            body(again).await;
            is_hit
        })
        .await;
        assert_eq!(origin.count("/a"), 1);
    }
}

#[tokio::test]
async fn rfc9111_s4_3_4_a_304_freshens_and_the_content_crosses_the_wan_once() {
    let whole = content(300_000);
    let sent = whole.clone();
    let origin = Origin::start(move |asked| match asked.field("if-none-match") {
        Some("\"one\"") => reply("304 Not Modified", &[TAG, ("X-New", "yes")], b""),
        _ => reply("200 OK", &[TAG, ("Cache-Control", "max-age=0")], &sent),
    })
    .await;
    let proxy = Proxy::start(origin.address).await;
    for round in 0..3 {
        let response = proxy.get("/a").await;
        let said = field(&response, "cache-status").to_owned();
        assert_eq!(said.contains("fwd=stale; fwd-status=304"), round > 0, "{said}");
        assert_eq!(response.headers().contains_key("x-new"), round > 0);
        assert!(body(response).await == whole);
    }
    let stats = proxy.stats().await;
    assert_eq!((origin.count("/a"), stats.wan_bytes), (3, 300_000));
    assert_eq!((stats.requests.miss, stats.requests.hit), (1, 2));
}

#[tokio::test]
async fn rfc9110_s13_and_s14_conditions_and_ranges_are_answered_from_the_store() {
    let whole = content(400_000);
    let sent = whole.clone();
    let origin =
        Origin::start(move |_| reply("200 OK", &[FRESH, TAG, ("Content-Type", "text/x")], &sent)).await;
    let proxy = Proxy::start(origin.address).await;
    body(proxy.get("/a").await).await;
    let known = proxy.with_fields("/a", &[("if-none-match", "W/\"one\"")]).await;
    assert_eq!((known.status().as_u16(), field(&known, "etag")), (304, "\"one\""));
    let refused = proxy.with_fields("/a", &[("if-match", "\"two\"")]).await;
    assert_eq!(refused.status(), 412);
    let part = proxy.with_fields("/a", &[("range", "bytes=-100")]).await;
    assert_eq!(part.status(), 206);
    assert_eq!(field(&part, "content-length"), "100");
    assert!(body(part).await == whole[399_900..]);
    let beyond = proxy.with_fields("/a", &[("range", "bytes=400000-")]).await;
    assert_eq!(
        (beyond.status().as_u16(), field(&beyond, "content-range")),
        (416, "bytes */400000")
    );
    let parts = proxy.with_fields("/a", &[("range", "bytes=0-9,1000-1009")]).await;
    assert_eq!(parts.status(), 206);
    assert!(field(&parts, "content-type").starts_with("multipart/byteranges; boundary="));
    let announced: usize = field(&parts, "content-length").parse().unwrap();
    let multipart = body(parts).await;
    assert_eq!(multipart.len(), announced);
    assert!(multipart.windows(10).any(|ten| *ten == whole[1000..1010]));
    let head = proxy.client.head(proxy.url("/a")).send().await.unwrap();
    assert_eq!(
        (head.status().as_u16(), field(&head, "content-length")),
        (200, "400000")
    );
    assert_eq!(origin.count("/a"), 1);
}

#[tokio::test]
async fn rfc9111_s4_4_an_unsafe_request_ends_the_reuse_of_what_was_stored() {
    let origin = Origin::start(|asked| reply("200 OK", &[FRESH], asked.method.as_bytes())).await;
    let proxy = Proxy::start(origin.address).await;
    body(proxy.get("/a").await).await;
    let posted = proxy.client.post(proxy.url("/a")).body("x").send().await.unwrap();
    assert!(field(&posted, "cache-status").contains("fwd=method"));
    assert_eq!(body(posted).await, b"POST");
    assert_eq!(body(proxy.get("/a").await).await, b"GET");
    let methods: Vec<_> = origin.asked().into_iter().map(|asked| asked.method).collect();
    assert_eq!(methods, ["GET", "POST", "GET"]);
}

#[tokio::test]
async fn p20_a_head_for_what_is_not_stored_is_a_head_upstream() {
    let origin = Origin::start(|_| reply("200 OK", &[FRESH, TAG], b"")).await;
    let proxy = Proxy::start(origin.address).await;
    let head = proxy.client.head(proxy.url("/a")).send().await.unwrap();
    assert_eq!(field(&head, "etag"), "\"one\"");
    assert_eq!(origin.asked()[0].method, "HEAD");
}

/// What a HEAD says about the content is no reason to believe it of what a GET brings, and a GET after it is one request.
#[tokio::test]
async fn rfc9110_s9_3_2_a_head_before_the_get_makes_no_get_wrong_and_none_more() {
    let origin = Origin::start(|asked| {
        if asked.method == "HEAD" {
            // Another length and validator than the content has.
            let lies = [FRESH, ("ETag", "\"lie\""), ("Content-Length", "999")];
            return vec![Step::Send(format!("{}\r\n", head("200 OK", &lies)).into_bytes())];
        }
        reply("200 OK", &[FRESH, TAG], b"content")
    })
    .await;
    let proxy = Proxy::start(origin.address).await;
    let first = proxy.client.head(proxy.url("/a")).send().await.unwrap();
    assert_eq!(
        (field(&first, "etag"), field(&first, "content-length")),
        ("\"lie\"", "999")
    );
    for _ in 0..2 {
        let got = proxy.get("/a").await;
        assert_eq!(field(&got, "etag"), "\"one\"");
        assert_eq!(body(got).await, b"content");
    }
    let stored = proxy.client.head(proxy.url("/a")).send().await.unwrap();
    assert_eq!(
        (field(&stored, "etag"), field(&stored, "content-length")),
        ("\"one\"", "7")
    );
    // One that goes to the origin all the same makes what is stored stale, as it says something else (RFC 9111 §4.3.5), and no more.
    let anew = proxy
        .client
        .head(proxy.url("/a"))
        .header("cache-control", "no-cache");
    assert_eq!(field(&anew.send().await.unwrap(), "etag"), "\"lie\"");
    assert_eq!(body(proxy.get("/a").await).await, b"content");
    let methods: Vec<_> = origin.asked().into_iter().map(|asked| asked.method).collect();
    assert_eq!(methods, ["HEAD", "GET", "HEAD", "GET"]);
}

#[tokio::test]
async fn rfc5861_s3_a_stale_response_is_sent_while_it_is_validated() {
    let origin = Origin::start(|asked| {
        let fields = [("Cache-Control", "max-age=0, stale-while-revalidate=600"), TAG];
        if asked.field("if-none-match").is_some() {
            return reply("304 Not Modified", &fields, b"");
        }
        reply("200 OK", &fields, b"content")
    })
    .await;
    let proxy = Proxy::start(origin.address).await;
    body(proxy.get("/a").await).await;
    let stale = proxy.get("/a").await;
    assert!(
        field(&stale, "cache-status").contains("hit"),
        "{}",
        field(&stale, "cache-status")
    );
    wait_until("the response is validated", async || origin.count("/a") >= 2).await;
    assert!(origin.asked()[1].field("if-none-match").is_some());
}

#[tokio::test]
async fn offline_nothing_is_asked_of_the_origin() {
    let origin = Origin::start(|_| reply("200 OK", &[("Cache-Control", "max-age=0"), TAG], b"content")).await;
    let proxy = Proxy::start(origin.address).await;
    body(proxy.get("/a").await).await;
    let dir = proxy.stop().await;
    let proxy = Proxy::in_folder(dir, origin.address, |settings| settings.offline = true).await;
    assert_eq!(body(proxy.get("/a").await).await, b"content");
    let miss = proxy.get("/b").await;
    assert_eq!(miss.status(), 404);
    assert!(body(miss).await.windows(7).any(|seven| seven == b"offline"));
    assert_eq!(origin.asked().len(), 1);
}
