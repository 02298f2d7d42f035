//! What may be shared, for how long, and what is said about it.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use kato_proxy::policy::SetCookie;
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

#[tokio::test]
async fn what_is_for_one_client_reaches_no_other() {
    let times = AtomicUsize::new(0);
    let origin = Origin::start(move |asked| {
        let body = times.fetch_add(1, Ordering::SeqCst).to_string();
        let fields: &[_] = match asked.path.as_str() {
            "/cookie" => &[
                ("Last-Modified", "Mon, 01 Jan 2024 00:00:00 GMT"),
                ("Set-Cookie", "session=1"),
            ],
            "/private" => &[("Cache-Control", "private, max-age=60")],
            "/any" => &[FRESH, ("Vary", "*")],
            "/no-store" => &[("Cache-Control", "no-store")],
            _ => &[FRESH],
        };
        reply("200 OK", fields, body.as_bytes())
    })
    .await;
    let proxy = Proxy::start(origin.address).await;
    for path in ["/cookie", "/private", "/any", "/no-store", "/authorized"] {
        let fields: &[_] = if path == "/authorized" {
            &[("authorization", "Basic a")]
        } else {
            &[]
        };
        let first = body(proxy.with_fields(path, fields).await).await;
        assert_ne!(body(proxy.with_fields(path, fields).await).await, first, "{path}");
        assert_eq!(origin.count(path), 2, "{path}");
    }
    assert_eq!(proxy.stats().await.stored_responses, 0);
}

/// An object that one client can keep from the others is worth an attack.
#[tokio::test]
async fn what_one_request_asks_for_itself_changes_nothing_for_others() {
    let origin = Origin::start(|asked| {
        let is_personal = asked.path == "/cookie" && asked.field("cookie").is_some();
        let rule = if is_personal {
            ("Cache-Control", "private")
        } else {
            FRESH
        };
        reply("200 OK", &[rule], b"object")
    })
    .await;
    let proxy = Proxy::start(origin.address).await;
    for (path, hostile) in [
        ("/no-store", ("cache-control", "no-store")),
        ("/authorized", ("authorization", "Basic a")),
        ("/cookie", ("cookie", "a=b")),
    ] {
        assert_eq!(body(proxy.with_fields(path, &[hostile]).await).await, b"object");
        for _ in 0..3 {
            assert_eq!(body(proxy.get(path).await).await, b"object");
        }
        assert_eq!(origin.count(path), 2, "{path}");
    }
}

#[tokio::test]
async fn what_credentials_brought_is_not_shared_though_it_never_changes() {
    let origin = Origin::start(|asked| {
        let rule = match asked.path.as_str() {
            "/plain" => ("ETag", "\"1\""),
            "/private" => ("Cache-Control", "private"),
            "/no-store" => ("Cache-Control", "no-store"),
            _ => ("Cache-Control", "public, max-age=60"),
        };
        let is_known = asked.field("authorization").is_some() || asked.field("cookie").is_some();
        let status = if is_known { "200 OK" } else { "401 Unauthorized" };
        reply(status, &[rule, ("Set-Cookie", "session=1")], b"secret")
    })
    .await;
    let proxy = Proxy::with(origin.address, |settings| {
        settings.upstreams[0].immutable = vec!["*".to_owned().try_into().unwrap()];
    })
    .await;
    for credentials in [("authorization", "Bearer a"), ("cookie", "a=b")] {
        for path in ["/plain", "/private", "/no-store"] {
            assert_eq!(proxy.with_fields(path, &[credentials]).await.status(), 200);
            let other = proxy.get(path).await;
            assert_eq!(other.status(), 401, "{path} after {credentials:?}");
        }
    }
    assert_eq!(
        proxy
            .with_fields("/public", &[("authorization", "Bearer a")])
            .await
            .status(),
        200
    );
    assert_eq!(
        proxy.get("/public").await.status(),
        200,
        "its origin says that it is for all"
    );
}

#[tokio::test]
async fn a_cookie_does_not_come_with_content_that_is_stored_against_the_rules() {
    let origin = Origin::start(|_| reply("200 OK", &[("Set-Cookie", "session=1")], b"package")).await;
    let proxy = Proxy::with(origin.address, |settings| {
        settings.upstreams[0].immutable = vec!["*".to_owned().try_into().unwrap()];
    })
    .await;
    assert_eq!(
        field(&proxy.get("/a").await, "set-cookie"),
        "session=1",
        "who caused it"
    );
    let next = proxy.get("/a").await;
    assert!(field(&next, "cache-status").contains("hit"));
    assert_eq!(field(&next, "set-cookie"), "");
}

#[tokio::test]
async fn who_waited_for_a_personal_answer_shares_the_next_one() {
    let go = Arc::new(Semaphore::new(0));
    let waits = Arc::clone(&go);
    let origin = Origin::start(move |asked| {
        let mut steps = reply("200 OK", &[FRESH], b"object");
        if asked.field("authorization").is_some() {
            steps.insert(0, Step::Wait(Arc::clone(&waits)));
        }
        steps
    })
    .await;
    let proxy = Arc::new(Proxy::start(origin.address).await);
    let mut clients = JoinSet::new();
    let mut ask = |fields: &'static [(&'static str, &'static str)]| {
        let proxy = Arc::clone(&proxy);
        clients.spawn(async move { body(proxy.with_fields("/a", fields).await).await });
    };
    ask(&[("authorization", "Basic a")]);
    wait_until("the first is asked for", async || origin.count("/a") == 1).await;
    (0..5).for_each(|_| ask(&[]));
    wait_until("five more are connected", async || {
        let page = proxy.client.get(format!("http://{}/-/metrics", proxy.admin));
        let page = page.send().await.unwrap().text().await.unwrap();
        let mut counts = page
            .lines()
            .filter_map(|line| line.strip_prefix("kato_proxy_open_connections "));
        counts.next().unwrap().parse::<u64>().unwrap() >= 6
    })
    .await;
    go.add_permits(1);
    while let Some(received) = timeout(DEADLINE, clients.join_next()).await.unwrap() {
        assert_eq!(received.unwrap(), b"object");
    }
    assert_eq!(origin.count("/a"), 2);
}

#[tokio::test]
async fn a_cookie_is_shared_where_the_response_or_the_settings_say_so() {
    let origin = Origin::start(|asked| {
        let rule = match asked.path.as_str() {
            "/public" => ("Cache-Control", "public, max-age=60"),
            "/guess" => ("Last-Modified", "Mon, 01 Jan 2024 00:00:00 GMT"),
            _ => ("Cache-Control", "max-age=60"),
        };
        reply("200 OK", &[rule, ("Set-Cookie", "theme=dark")], b"page")
    })
    .await;
    let with = async |rule| {
        Proxy::with(origin.address, |settings| {
            settings.upstreams[0].store_set_cookie = rule;
        })
        .await
    };
    let (strict, lenient) = (with(SetCookie::Public).await, with(SetCookie::Always).await);
    let default = Proxy::start(origin.address).await;
    for (proxy, path, requests) in [
        (&strict, "/public", 1),
        (&strict, "/strict", 2),
        (&default, "/stated", 1),
        (&lenient, "/guess", 1),
    ] {
        for _ in 0..2 {
            body(proxy.get(path).await).await;
        }
        assert_eq!(origin.count(path), requests, "{path}");
    }
}

#[tokio::test]
async fn an_error_is_remembered_as_long_as_the_settings_say() {
    let origin = Origin::start(|asked| match asked.path.as_str() {
        "/broken" => reply("500 Internal Server Error", &[], b"oh"),
        "/gone" => reply("410 Gone", &[], b"gone"),
        _ => reply("404 Not Found", &[], b"nothing"),
    })
    .await;
    let plain = Proxy::start(origin.address).await;
    let remembering = Proxy::with(origin.address, |settings| {
        settings.upstreams[0].negative_ttl = Some("10m".parse().unwrap());
        settings.upstreams[0].min_freshness = Some("1h".parse().unwrap());
    })
    .await;
    for (proxy, path, requests) in [
        (&plain, "/missing", 2),
        (&remembering, "/absent", 1),
        (&remembering, "/gone", 1),
        (&remembering, "/broken", 2),
    ] {
        for _ in 0..2 {
            body(proxy.get(path).await).await;
        }
        assert_eq!(origin.count(path), requests, "{path}");
    }
    let said = field(&remembering.get("/absent").await, "cache-status").to_owned();
    let ttl: u32 = said
        .split("ttl=")
        .nth(1)
        .unwrap()
        .split(';')
        .next()
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    assert!(
        ttl <= 600,
        "the minimum for content must not reach errors: {said}"
    );
}

#[tokio::test]
async fn p20_a_head_before_a_get_costs_one_get() {
    let origin = Origin::start(|asked| {
        let sent = if asked.method == "HEAD" {
            &b""[..]
        } else {
            b"content"
        };
        let head = format!("{}Content-Length: 7\r\n\r\n", head("200 OK", &[FRESH]));
        vec![Step::Send([head.as_bytes(), sent].concat())]
    })
    .await;
    let proxy = Proxy::start(origin.address).await;
    let asked = proxy.client.head(proxy.url("/a")).send().await.unwrap();
    assert_eq!(
        (asked.status().as_u16(), field(&asked, "content-length")),
        (200, "7")
    );
    assert_eq!(body(proxy.get("/a").await).await, b"content");
    let asked = proxy.client.head(proxy.url("/a")).send().await.unwrap();
    assert!(
        field(&asked, "cache-status").contains("hit"),
        "{}",
        field(&asked, "cache-status")
    );
    let methods: Vec<_> = origin.asked().into_iter().map(|asked| asked.method).collect();
    assert_eq!(methods, ["HEAD", "GET"]);
}

#[tokio::test]
async fn rfc9110_s6_5_1_trailers_end_here_and_the_body_is_whole() {
    let origin = Origin::start(|_| {
        let head = format!(
            "{}Transfer-Encoding: chunked\r\nTrailer: X-Late\r\n\r\n",
            head("200 OK", &[FRESH])
        );
        vec![Step::Send(
            [head.as_bytes(), b"4\r\nbody\r\n0\r\nX-Late: 1\r\n\r\n"].concat(),
        )]
    })
    .await;
    let proxy = Proxy::start(origin.address).await;
    for _ in 0..2 {
        let response = proxy.get("/a").await;
        assert!(field(&response, "trailer").is_empty() && field(&response, "x-late").is_empty());
        assert_eq!(body(response).await, b"body");
    }
    assert_eq!(origin.count("/a"), 1);
}

#[tokio::test]
async fn p04_a_follower_that_does_not_read_slows_nobody() {
    let whole = content(32 << 20);
    let sent = whole.clone();
    let origin = Origin::start(move |_| reply("200 OK", &[FRESH], &sent)).await;
    let proxy = Proxy::start(origin.address).await;
    let leader = proxy.get("/big").await;
    let mut slow = TcpStream::connect(proxy.address).await.unwrap();
    slow.write_all(b"GET /o/big HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut first = [0_u8; 16];
    slow.read_exact(&mut first).await.unwrap();
    assert!(body(leader).await == whole);
    assert!(body(proxy.get("/big").await).await == whole);
    // And it gets its own bytes when it comes back for them, from the file.
    wait_until("the response is stored", async || {
        proxy.stats().await.stored_responses == 1
    })
    .await;
    let mut late = Vec::new();
    timeout(DEADLINE, slow.read_to_end(&mut late))
        .await
        .unwrap()
        .unwrap();
    assert!(late.ends_with(&whole[whole.len() - (1 << 20)..]) && late.len() > whole.len());
    assert_eq!(origin.count("/big"), 1);
}

#[tokio::test]
async fn rfc9211_s2_2_a_stale_answer_says_whether_the_origin_was_asked() {
    let is_broken = Arc::new(AtomicUsize::new(0));
    let broken = Arc::clone(&is_broken);
    let origin = Origin::start(move |_| match broken.load(Ordering::SeqCst) {
        0 => reply(
            "200 OK",
            &[("Cache-Control", "max-age=0"), ("ETag", "\"a\"")],
            b"content",
        ),
        _ => reply("503 Service Unavailable", &[], b""),
    })
    .await;
    let proxy = Proxy::start(origin.address).await;
    body(proxy.get("/a").await).await;
    is_broken.store(1, Ordering::SeqCst);
    let asked = proxy.get("/a").await;
    assert_eq!(asked.status(), 200);
    let said = field(&asked, "cache-status");
    assert!(
        said.starts_with("kato; fwd=stale; fwd-status=503; ttl=") && said.ends_with("detail=stale-if-error"),
        "{said}"
    );
    let permitted = proxy
        .with_fields("/a", &[("cache-control", "max-stale=60")])
        .await;
    let said = field(&permitted, "cache-status");
    assert!(said.starts_with("kato; hit; ttl="), "{said}");
}
