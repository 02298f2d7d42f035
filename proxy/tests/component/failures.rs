//! What breaks looks broken; what can be saved is saved out of the client's sight.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    DEADLINE, Proxy, body, content, field,
    origin::{Origin, Step, head, reply},
};

const FRESH: (&str, &str) = ("Cache-Control", "max-age=3600");
const TAG: (&str, &str) = ("ETag", "\"one\"");

#[tokio::test]
async fn p05_a_download_that_fails_breaks_the_connection_and_leaves_nothing_stored() {
    for framing in ["Content-Length: 1000000", "Transfer-Encoding: chunked"] {
        let origin = Origin::start(move |_| {
            let head = format!("{}{framing}\r\n\r\n", head("200 OK", &[FRESH]));
            vec![
                Step::Send([head.as_bytes(), b"3e8\r\n", &content(1002)].concat()),
                Step::Break,
            ]
        })
        .await;
        let proxy = Proxy::start(origin.address).await;
        for round in 1..=2 {
            let mut client = TcpStream::connect(proxy.address).await.unwrap();
            client
                .write_all(b"GET /o/broken HTTP/1.1\r\nHost: x\r\n\r\n")
                .await
                .unwrap();
            let mut received = Vec::new();
            let end = timeout(DEADLINE, client.read_to_end(&mut received))
                .await
                .unwrap();
            let text = String::from_utf8_lossy(&received);
            // An error or an early close, and no final chunk: nothing a client could take for an end.
            let looks_whole = end.is_ok() && text.contains("chunked") && text.ends_with("0\r\n\r\n");
            assert!(!looks_whole, "{framing}");
            assert!(received.len() < 1_000_000, "{framing}");
            assert_eq!(origin.count("/broken"), round, "{framing}");
        }
        assert_eq!(proxy.stats().await.stored_responses, 0, "{framing}");
    }
}

#[tokio::test]
async fn row_e_an_interruption_is_resumed_out_of_the_clients_sight() {
    let whole = content(1 << 20);
    let sent = whole.clone();
    let origin = Origin::start(move |asked| {
        let half = sent.len() / 2;
        match asked.field("range") {
            None => {
                let head = format!(
                    "{}Content-Length: {}\r\n\r\n",
                    head("200 OK", &[FRESH, TAG]),
                    sent.len()
                );
                vec![Step::Send([head.as_bytes(), &sent[..half]].concat()), Step::Break]
            }
            Some(range) => {
                let first: usize = range
                    .trim_start_matches("bytes=")
                    .trim_end_matches('-')
                    .parse()
                    .unwrap();
                let part = format!("bytes {first}-{}/{}", sent.len() - 1, sent.len());
                reply(
                    "206 Partial Content",
                    &[TAG, ("Content-Range", &part)],
                    &sent[first..],
                )
            }
        }
    })
    .await;
    let proxy = Proxy::start(origin.address).await;
    assert!(body(proxy.get("/big").await).await == whole);
    let asked = origin.asked();
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[1].field("range"), Some("bytes=524288-"));
    assert_eq!(asked[1].field("if-range"), Some("\"one\""));
    assert!(body(proxy.get("/big").await).await == whole);
    assert_eq!(origin.count("/big"), 2);
}

#[tokio::test]
async fn two_representations_are_never_spliced() {
    let origin = Origin::start(|asked| {
        if asked.field("range").is_none() {
            let head = format!("{}Content-Length: 1000\r\n\r\n", head("200 OK", &[FRESH, TAG]));
            return vec![Step::Send([head.as_bytes(), &content(500)].concat()), Step::Break];
        }
        let other = [("ETag", "\"two\""), ("Content-Range", "bytes 500-999/1000")];
        reply("206 Partial Content", &other, &[0; 500])
    })
    .await;
    let proxy = Proxy::start(origin.address).await;
    let response = proxy.get("/changed").await;
    assert!(timeout(DEADLINE, response.bytes()).await.unwrap().is_err());
    assert_eq!(proxy.stats().await.stored_responses, 0);
}

#[tokio::test]
async fn row_f_a_stale_response_stands_in_for_an_origin_that_is_down_unless_it_forbids_that() {
    let origin = Origin::start(|asked| {
        let rule = if asked.path == "/strict" {
            "max-age=0, must-revalidate"
        } else {
            "max-age=0"
        };
        reply("200 OK", &[("Cache-Control", rule), TAG], b"content")
    })
    .await;
    let address = origin.address;
    let proxy = Proxy::start(address).await;
    for path in ["/lenient", "/strict"] {
        assert_eq!(body(proxy.get(path).await).await, b"content");
    }
    drop(origin);
    let lenient = proxy.get("/lenient").await;
    assert_eq!(lenient.status(), 200);
    assert!(
        field(&lenient, "cache-status").contains("stale"),
        "{}",
        field(&lenient, "cache-status")
    );
    assert_eq!(body(lenient).await, b"content");
    let strict = proxy.get("/strict").await;
    // RFC 9111 §5.2.2.2: "the cache MUST generate an error response rather than reuse …  504 (Gateway Timeout)".
    assert_eq!(strict.status(), 504);
    assert_eq!(field(&strict, "content-type"), "application/problem+json");
    let problem: kato_shared::api::Problem = serde_json::from_slice(&body(strict).await).unwrap();
    assert_eq!(problem.kind, "urn:kato:problem:upstream-unreachable");
    assert!(
        problem.detail.contains(&format!("http://{address}/strict")),
        "{}",
        problem.detail
    );
}

#[tokio::test]
async fn p15_a_body_that_the_store_has_no_room_for_reaches_every_client_whole() {
    let whole = content(24 << 20);
    let sent = whole.clone();
    let origin = Origin::start(move |asked| {
        if asked.path == "/announced" {
            return reply("200 OK", &[FRESH], &sent);
        }
        // Not announced: the store finds out in the middle.
        let head = format!("{}Transfer-Encoding: chunked\r\n\r\n", head("200 OK", &[FRESH]));
        let size = format!("{:x}\r\n", sent.len());
        vec![Step::Send(
            [head.as_bytes(), size.as_bytes(), &sent, b"\r\n0\r\n\r\n"].concat(),
        )]
    })
    .await;
    let small = |settings: &mut kato_proxy::settings::Settings| {
        settings.cache.max_size = kato_shared::settings::ByteSize::mib(20);
    };
    let proxy = Proxy::with(origin.address, small).await;
    for path in ["/announced", "/chunked"] {
        for _ in 0..2 {
            assert!(body(proxy.get(path).await).await == whole, "{path}");
        }
    }
    assert_eq!(proxy.stats().await.stored_responses, 0);
    let left = std::fs::read_dir(proxy.dir.path().join("tmp")).unwrap().count();
    assert_eq!(left, 0, "temporary files are left");
}

#[tokio::test]
async fn the_next_mirror_answers_when_the_first_does_not() {
    let good = Origin::start(|_| reply("200 OK", &[FRESH], b"from the second")).await;
    let overloaded = Origin::start(|_| reply("503 Service Unavailable", &[], b"")).await;
    // Nobody listens there any more.
    let dead = {
        let gone = Origin::start(|_| vec![Step::Break]).await;
        gone.address
    };
    let (second, third) = (overloaded.address, good.address);
    let proxy = Proxy::with(dead, |settings| {
        settings.set_upstream(
            format!("o=http://{dead}/,http://{second}/x,http://{third}/y")
                .parse()
                .unwrap(),
        );
    })
    .await;
    assert_eq!(body(proxy.get("/a").await).await, b"from the second");
    assert_eq!((overloaded.count("/x/a"), good.count("/y/a")), (1, 1));
}

#[tokio::test]
async fn a_redirect_is_followed_and_its_content_stays_bound_to_the_url_asked() {
    let origin = Origin::start(|asked| match asked.path.as_str() {
        "/moved" => reply("302 Found", &[("Location", "/here?sig=secret")], b""),
        "/away" => reply("302 Found", &[("Location", "http://127.0.0.1:1/")], b""),
        "/round" => reply("302 Found", &[("Location", "/round")], b""),
        _ => reply("200 OK", &[FRESH], b"found"),
    })
    .await;
    let proxy = Proxy::start(origin.address).await;
    for _ in 0..2 {
        assert_eq!(body(proxy.get("/moved").await).await, b"found");
    }
    // A temporary redirect that says nothing is good for one answer.
    assert_eq!(origin.count("/moved"), 2);
    assert_eq!(proxy.get("/away").await.status(), 502);
    assert_eq!(proxy.get("/round").await.status(), 502);
}

#[tokio::test]
async fn an_origin_that_stops_sending_is_given_up_on_after_the_progress_timeout() {
    let asked_again = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked_again);
    let origin = Origin::start(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        let head = format!("{}Content-Length: 1000\r\n\r\n", head("200 OK", &[FRESH]));
        let never = Arc::new(tokio::sync::Semaphore::new(0));
        vec![
            Step::Send([head.as_bytes(), &content(500)].concat()),
            Step::Wait(never),
        ]
    })
    .await;
    let proxy = Proxy::with(origin.address, |settings| {
        settings.limits.progress_timeout = "300ms".parse().unwrap();
    })
    .await;
    let response = proxy.get("/stalls").await;
    assert!(timeout(DEADLINE, response.bytes()).await.unwrap().is_err());
    // Without a validator there is nothing to resume with.
    assert_eq!(asked_again.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn rfc9111_s4_2_4_an_origin_that_closed_one_connection_is_asked_about_everything_else() {
    const STALE: (&str, &str) = ("Cache-Control", "max-age=0");
    let times = AtomicUsize::new(0);
    let origin = Origin::start(move |asked| {
        if asked.path == "/broken" && times.fetch_add(1, Ordering::Relaxed) > 0 {
            return vec![Step::Break];
        }
        reply("200 OK", &[STALE, TAG], b"content")
    })
    .await;
    let proxy = Proxy::start(origin.address).await;
    for path in ["/broken", "/fine"] {
        assert_eq!(body(proxy.get(path).await).await, b"content");
    }
    let stood_in = proxy.get("/broken").await;
    assert!(field(&stood_in, "cache-status").contains("stale-if-error"));
    let asked = proxy.get("/fine").await;
    assert!(field(&asked, "cache-status").contains("fwd=stale"));
    assert_eq!(origin.count("/fine"), 2);
}

#[tokio::test]
async fn rfc5861_s4_a_stored_error_does_not_stand_in_for_an_origin_that_fails() {
    let times = AtomicUsize::new(0);
    let origin = Origin::start(move |asked| {
        if times.fetch_add(1, Ordering::Relaxed) > 1 {
            return reply("503 Service Unavailable", &[], b"later");
        }
        let status = if asked.path == "/404" {
            "404 Not Found"
        } else {
            "500 Oops"
        };
        reply(
            status,
            &[("Cache-Control", "max-age=0, stale-if-error=600")],
            b"error",
        )
    })
    .await;
    let proxy = Proxy::start(origin.address).await;
    for (path, status) in [("/404", 404), ("/500", 500)] {
        assert_eq!(proxy.get(path).await.status(), status);
    }
    for path in ["/404", "/500"] {
        assert_eq!(
            proxy.get(path).await.status(),
            503,
            "{path}: the origin's own words"
        );
    }
    drop(origin);
    // Nobody is there to say otherwise.
    for (path, status) in [("/404", 404), ("/500", 502)] {
        assert_eq!(proxy.get(path).await.status(), status, "{path}");
    }
}

#[tokio::test]
async fn p08_a_url_that_hangs_does_not_keep_the_others_from_their_origin() {
    let never = Arc::new(tokio::sync::Semaphore::new(0));
    let origin = Origin::start(move |asked| {
        if asked.path == "/hangs" && asked.field("if-none-match").is_some() {
            return vec![Step::Wait(Arc::clone(&never))];
        }
        reply("200 OK", &[("Cache-Control", "max-age=0"), TAG], b"content")
    })
    .await;
    let proxy = Proxy::with(origin.address, |settings| {
        settings.limits.progress_timeout = "300ms".parse().unwrap();
    })
    .await;
    for path in ["/hangs", "/fine"] {
        assert_eq!(body(proxy.get(path).await).await, b"content");
    }
    for _ in 0..2 {
        let stood_in = proxy.get("/hangs").await;
        assert!(field(&stood_in, "cache-status").contains("stale-if-error"));
    }
    assert_eq!(origin.count("/hangs"), 2, "the second has not waited again");
    let asked = proxy.get("/fine").await;
    assert!(field(&asked, "cache-status").contains("fwd=stale"));
    assert!(!field(&asked, "cache-status").contains("stale-if-error"));
    assert_eq!(origin.count("/fine"), 2);
}
