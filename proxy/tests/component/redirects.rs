//! What redirects say about caching counts for what they lead to.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use crate::{
    Proxy, body, field,
    origin::{Origin, Step, reply},
    raw::Raw,
};

const FRESH: (&str, &str) = ("Cache-Control", "max-age=3600");

/// An origin whose `/latest` redirects with `redirect` and these fields to `/v1`, `/v2`, … in turn of `release`; each says that it is
/// fresh for an hour and answers conditions by its own validators.
async fn releases(fields: &'static [(&'static str, &'static str)]) -> (Origin, Arc<AtomicUsize>) {
    let release = Arc::new(AtomicUsize::new(1));
    let current = Arc::clone(&release);
    let origin = Origin::start(move |asked| {
        if asked.path == "/latest" {
            let to = format!("/v{}", current.load(Ordering::Relaxed));
            return reply("302 Found", &[&[("Location", to.as_str())], fields].concat(), b"");
        }
        // The tag is the same for all, as where it is a counter; the dates are not in order.
        let tag = ("ETag", "\"one\"");
        if asked
            .field("if-none-match")
            .is_some_and(|tags| tags.contains(tag.1))
        {
            return reply("304 Not Modified", &[tag, FRESH], b"");
        }
        reply("200 OK", &[tag, FRESH], asked.path.as_bytes())
    })
    .await;
    (origin, release)
}

#[tokio::test]
async fn rfc9111_s3_what_a_private_redirect_leads_to_is_given_to_nobody_else() {
    let origin = Origin::start(|asked| {
        let user = asked.field("cookie").unwrap_or("nobody").to_owned();
        if asked.path == "/mine" {
            let fields = [
                ("Location", "/page"),
                ("Cache-Control", "private, no-store"),
                ("Set-Cookie", "sid=1"),
                ("Vary", "Cookie"),
            ];
            return reply("302 Found", &fields, b"");
        }
        reply("200 OK", &[FRESH], user.as_bytes())
    })
    .await;
    let proxy = Proxy::start(origin.address).await;
    for user in ["user=a", "user=b", "user=a"] {
        let answer = proxy.with_fields("/mine", &[("Cookie", user)]).await;
        let rules = field(&answer, "cache-control").to_owned();
        assert!(
            rules.contains("no-store"),
            "for the caches behind this one, too: {rules}"
        );
        assert_eq!(body(answer).await, user.as_bytes());
    }
    assert_eq!(origin.count("/mine"), 3);
    assert_eq!(proxy.stats().await.stored_responses, 0);
}

#[tokio::test]
async fn rfc9111_s4_2_1_a_redirect_without_a_lifetime_is_asked_each_time_and_a_304_of_its_target_will_do() {
    let (origin, release) = releases(&[]).await;
    let proxy = Proxy::start(origin.address).await;
    for _ in 0..2 {
        assert_eq!(body(proxy.get("/latest").await).await, b"/v1");
    }
    assert_eq!(origin.count("/latest"), 2);
    let validated = origin
        .asked()
        .into_iter()
        .filter(|asked| asked.path == "/v1")
        .nth(1)
        .unwrap();
    assert_eq!(validated.field("if-none-match"), Some("\"one\""));
    // Another target is not asked about the validator of the first, which it may have, too.
    release.store(2, Ordering::Relaxed);
    for _ in 0..2 {
        assert_eq!(body(proxy.get("/latest").await).await, b"/v2");
    }
    release.store(1, Ordering::Relaxed);
    assert_eq!(proxy.stats().await.stored_responses, 1);
}

#[tokio::test]
async fn rfc9111_s4_2_1_the_shorter_lifetime_counts_and_what_is_said_to_hold_holds() {
    for (fields, asked) in [
        (&[("Cache-Control", "max-age=0")][..], 2),
        (&[("Cache-Control", "max-age=600")], 1),
    ] {
        let fields: &'static [(&'static str, &'static str)] = fields.to_vec().leak();
        let (origin, _) = releases(fields).await;
        let proxy = Proxy::start(origin.address).await;
        for _ in 0..2 {
            assert_eq!(body(proxy.get("/latest").await).await, b"/v1");
        }
        assert_eq!(origin.count("/latest"), asked, "{fields:?}");
    }
}

#[tokio::test]
async fn settings_that_know_better_than_a_redirect_decide() {
    let (origin, _) = releases(&[]).await;
    let proxy = Proxy::with(origin.address, |settings| {
        settings.upstreams[0].min_freshness = Some("1h".parse().unwrap());
    })
    .await;
    for _ in 0..2 {
        assert_eq!(body(proxy.get("/latest").await).await, b"/v1");
    }
    assert_eq!(origin.count("/latest"), 1);
}

#[tokio::test]
async fn rfc9111_s4_1_the_vary_of_a_redirect_selects() {
    let origin = Origin::start(|asked| match asked.path.as_str() {
        "/page" => {
            let to = format!("/in/{}", asked.field("accept-language").unwrap_or("any"));
            let fields = [("Location", to.as_str()), ("Vary", "Accept-Language"), FRESH];
            reply("302 Found", &fields, b"")
        }
        path => reply("200 OK", &[FRESH], path.as_bytes()),
    })
    .await;
    let proxy = Proxy::start(origin.address).await;
    for _ in 0..2 {
        for language in ["de", "fr"] {
            let answer = proxy.with_fields("/page", &[("Accept-Language", language)]).await;
            assert_eq!(body(answer).await, format!("/in/{language}").as_bytes());
        }
    }
    assert_eq!(origin.count("/page"), 2);
}

#[tokio::test]
async fn rfc9111_s4_3_3_a_redirect_that_has_become_private_is_not_taken_for_a_validation() {
    let times = AtomicUsize::new(0);
    let origin = Origin::start(move |asked| {
        if asked.path != "/page" {
            let tag = ("ETag", "\"one\"");
            let rules = ("Cache-Control", "max-age=0");
            return match asked.field("if-none-match") {
                Some(_) => reply("304 Not Modified", &[tag, rules], b""),
                None => reply("200 OK", &[tag, rules], b"content"),
            };
        }
        match times.fetch_add(1, Ordering::Relaxed) {
            0 => reply("302 Found", &[("Location", "/target"), FRESH], b""),
            _ => reply(
                "302 Found",
                &[("Location", "/target"), ("Cache-Control", "private")],
                b"",
            ),
        }
    })
    .await;
    let proxy = Proxy::start(origin.address).await;
    for _ in 0..3 {
        let answer = proxy.get("/page").await;
        assert_eq!(
            (answer.status().as_u16(), body(answer).await),
            (200, b"content".to_vec())
        );
    }
    // The second asks with a condition and then without; the third alone.
    assert_eq!(origin.count("/page"), 4);
}

#[tokio::test]
async fn rfc9112_s6_1_a_transfer_coding_that_nobody_asked_for_is_not_taken_for_content() {
    for (fields, is_usable) in [
        ("Transfer-Encoding: gzip, chunked", false),
        ("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked", false),
        ("Transfer-Encoding: Chunked", true),
        ("Transfer-Encoding: chunked\r\nContent-Length: 5", false),
        ("Content-Length: 15\r\nTransfer-Encoding: chunked", false),
        ("Transfer-Encoding: none-such, chunked", true),
    ] {
        let origin = Origin::start(move |_| {
            let answer = format!(
                "HTTP/1.1 200 OK\r\n{fields}\r\nCache-Control: max-age=9\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
            );
            vec![Step::Send(answer.into_bytes())]
        })
        .await;
        let proxy = Proxy::start(origin.address).await;
        for _ in 0..2 {
            let answer = proxy.get("/coded").await;
            assert_eq!(answer.status(), if is_usable { 200 } else { 502 }, "{fields}");
            body(answer).await;
        }
        assert_eq!(origin.count("/coded"), if is_usable { 1 } else { 2 }, "{fields}");
    }
}

#[tokio::test]
async fn rfc9110_s15_3_6_content_of_a_205_is_neither_passed_on_nor_taken_for_the_next_answer() {
    for fields in ["Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n", ""] {
        let origin = Origin::start(move |asked| {
            if asked.path == "/other" {
                return reply("200 OK", &[("Cache-Control", "no-store")], b"other");
            }
            let body = if fields.starts_with('T') {
                "5\r\nhello\r\n0\r\n\r\n"
            } else {
                "hello"
            };
            let answer =
                format!("HTTP/1.1 205 Reset Content\r\n{fields}Cache-Control: max-age=9\r\n\r\n{body}");
            vec![Step::Send(answer.into_bytes()), Step::Break]
        })
        .await;
        let proxy = Proxy::start(origin.address).await;
        for method in ["GET", "GET", "POST"] {
            let mut client = Raw::connect(proxy.address).await;
            let head = "HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n";
            client.send(&format!("{method} /o/reset {head}")).await;
            let answer = client.answer().await;
            assert_eq!(
                (answer.status, &answer.body[..]),
                (205, &b""[..]),
                "{method} {fields}"
            );
            assert_eq!(answer.field("content-length"), "0", "{method} {fields}");
            client.send(&format!("GET /o/other {head}")).await;
            assert_eq!(client.answer().await.body, b"other", "{method} {fields}");
        }
    }
}

#[tokio::test]
async fn answers_that_break_the_rules_of_http_are_called_by_their_name_and_asked_for_once() {
    for (nth, broken) in [
        "SSH-2.0-OpenSSH\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX-A: a\rb\r\nContent-Length: 1\r\n\r\nx",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: foo\r\nConnection: upgrade\r\n\r\n",
    ]
    .into_iter()
    .enumerate()
    {
        let origin = Origin::start(move |asked| match asked.path.as_str() {
            "/fine" => reply("200 OK", &[("Cache-Control", "no-store")], b"fine"),
            _ => vec![Step::Send(broken.as_bytes().to_vec()), Step::Break],
        })
        .await;
        let proxy = Proxy::start(origin.address).await;
        // Over a connection that was used before, too.
        assert_eq!(body(proxy.get("/fine").await).await, b"fine");
        let answer = proxy.get("/broken").await;
        assert_eq!(answer.status(), 502, "{nth}");
        let problem: kato_shared::api::Problem = serde_json::from_slice(&body(answer).await).unwrap();
        assert_eq!(
            problem.kind, "urn:kato:problem:upstream-response",
            "{nth}: {}",
            problem.detail
        );
        assert_eq!(origin.count("/broken"), 1, "{nth}");
        let metrics = format!("http://{}/-/metrics", proxy.admin);
        let metrics = proxy
            .client
            .get(metrics)
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap();
        let counted = "kato_proxy_upstream_failures_total{upstream=\"o\",kind=\"bad_response\"} 1";
        assert!(metrics.contains(counted), "{nth}: {metrics}");
    }
}
