//! How origins are asked: which of them, over which connections, how often, and what a failure costs.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use kato_proxy::settings::{ParentProxy, Settings};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::Semaphore,
    time::{Instant, timeout},
};

use crate::{
    Proxy, body, content, field,
    origin::{Origin, Step, head, reply},
    wait_until,
};

const FRESH: (&str, &str) = ("Cache-Control", "max-age=3600");
const STALE: (&str, &str) = ("Cache-Control", "max-age=0");
const TAG: (&str, &str) = ("ETag", "\"one\"");

/// Settings with the URLs of `origins` for the one upstream.
fn at(settings: &mut Settings, origins: &[SocketAddr]) {
    let urls: Vec<_> = origins
        .iter()
        .map(|address| format!("http://{address}/"))
        .collect();
    settings.upstreams = vec![format!("o={}", urls.join(",")).parse().unwrap()];
}

/// An address that does not even refuse: a listener whose queue is full.
async fn black_hole() -> (TcpListener, Vec<TcpStream>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let listener = socket.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let mut held = Vec::new();
    while let Ok(connected) = timeout(Duration::from_millis(200), TcpStream::connect(address)).await {
        held.push(connected.unwrap());
    }
    (listener, held)
}

#[tokio::test]
async fn p08_a_url_that_failed_costs_later_requests_no_wait() {
    let (hole, _held) = black_hole().await;
    let good = Origin::start(|_| reply("200 OK", &[FRESH], b"good")).await;
    let patience = Duration::from_millis(800);
    let addresses = [hole.local_addr().unwrap(), good.address];
    let proxy = Proxy::with(good.address, |settings| {
        at(settings, &addresses);
        settings.limits.connect_timeout = "800ms".parse().unwrap();
    })
    .await;
    let began = Instant::now();
    assert_eq!(body(proxy.get("/first").await).await, b"good");
    assert!(began.elapsed() >= patience, "the first pays");
    for nth in 0..5 {
        let began = Instant::now();
        assert_eq!(body(proxy.get(&format!("/later/{nth}")).await).await, b"good");
        assert!(
            began.elapsed() < patience / 2,
            "later ones do not: {:?}",
            began.elapsed()
        );
    }
}

/// Half of `whole`, then the end of the connection; a range of it where one is asked for.
fn breaking(whole: Vec<u8>, tag: &'static str, breaks: bool) -> impl Fn(&crate::origin::Asked) -> Vec<Step> {
    move |asked| {
        let range = asked.field("range").and_then(|range| {
            range
                .trim_start_matches("bytes=")
                .trim_end_matches('-')
                .parse::<usize>()
                .ok()
        });
        let tag = ("ETag", tag);
        match range {
            Some(first) if asked.field("if-range") == Some(tag.1) => {
                if breaks {
                    return vec![Step::Break];
                }
                let part = format!("bytes {first}-{}/{}", whole.len() - 1, whole.len());
                reply(
                    "206 Partial Content",
                    &[tag, ("Content-Range", &part)],
                    &whole[first..],
                )
            }
            _ => {
                let head = format!(
                    "{}Content-Length: {}\r\n\r\n",
                    head("200 OK", &[FRESH, tag]),
                    whole.len()
                );
                let shown = if breaks { whole.len() / 2 } else { whole.len() };
                vec![
                    Step::Send([head.as_bytes(), &whole[..shown]].concat()),
                    Step::Break,
                ]
            }
        }
    }
}

#[tokio::test]
async fn row_e_a_body_goes_on_from_the_next_url_under_the_same_validator_and_no_other() {
    let whole = content(1 << 20);
    for (tag_of_second, is_whole) in [("\"one\"", true), ("\"two\"", false)] {
        let first = Origin::start(breaking(whole.clone(), "\"one\"", true)).await;
        let second = Origin::start(breaking(whole.clone(), tag_of_second, false)).await;
        let addresses = [first.address, second.address];
        let proxy = Proxy::with(first.address, |settings| at(settings, &addresses)).await;
        let received = timeout(crate::DEADLINE, proxy.get("/big").await.bytes())
            .await
            .unwrap();
        match received {
            Ok(bytes) => assert!(is_whole && bytes == whole),
            Err(_broken) => assert!(!is_whole),
        }
        assert_eq!(second.count("/big"), 1, "{tag_of_second}");
        let range = second.asked()[0].field("range").map(str::to_owned);
        assert!(range.is_some_and(|range| range == format!("bytes={}-", whole.len() / 2)));
    }
}

#[tokio::test]
async fn row_e_an_origin_without_ranges_is_read_over_what_is_here() {
    let whole = content(1 << 20);
    let sent = whole.clone();
    let times = AtomicUsize::new(0);
    let origin = Origin::start(move |_| {
        let head = format!(
            "{}Content-Length: {}\r\n\r\n",
            head("200 OK", &[FRESH, TAG]),
            sent.len()
        );
        let shown = if times.fetch_add(1, Ordering::Relaxed) == 0 {
            sent.len() / 3
        } else {
            sent.len()
        };
        vec![
            Step::Send([head.as_bytes(), &sent[..shown]].concat()),
            Step::Break,
        ]
    })
    .await;
    let proxy = Proxy::start(origin.address).await;
    assert_eq!(body(proxy.get("/plain").await).await, whole);
    assert_eq!(origin.count("/plain"), 2);
}

#[tokio::test]
async fn connections_to_an_origin_are_bounded_and_given_out_in_order() {
    let gate = Arc::new(Semaphore::new(0));
    let held = Arc::clone(&gate);
    let origin = Origin::start(move |asked| {
        let mut steps = vec![Step::Wait(Arc::clone(&held))];
        steps.extend(reply("200 OK", &[FRESH], asked.path.as_bytes()));
        steps
    })
    .await;
    let proxy = Arc::new(
        Proxy::with(origin.address, |settings| {
            settings.limits.connections_per_origin = 2;
        })
        .await,
    );
    let mut clients = tokio::task::JoinSet::new();
    for nth in 0..6 {
        let asking = Arc::clone(&proxy);
        clients.spawn(async move { body(asking.get(&format!("/{nth}")).await).await });
        if nth < 2 {
            wait_until("it is asked", async || origin.asked().len() > nth).await;
        } else {
            // It waits inside the proxy, in the order of arrival.
            wait_until("it has arrived", async || {
                proxy.stats().await.upstreams[0].requests > nth as u64
            })
            .await;
        }
    }
    assert_eq!(origin.asked().len(), 2, "the others wait");
    for asked in 3..=6 {
        gate.add_permits(1);
        wait_until("the next is asked", async || origin.asked().len() == asked).await;
    }
    gate.add_permits(2);
    while let Some(done) = clients.join_next().await {
        assert_eq!(done.unwrap().len(), 2);
    }
    let order: Vec<_> = origin.asked().into_iter().map(|asked| asked.path).collect();
    assert_eq!(order[2..], ["/2", "/3", "/4", "/5"]);
}

#[tokio::test]
async fn waiting_for_a_connection_ends_with_503() {
    let never = Arc::new(Semaphore::new(0));
    let origin = Origin::start(move |_| vec![Step::Wait(Arc::clone(&never))]).await;
    let proxy = Proxy::with(origin.address, |settings| {
        settings.limits.connections_per_origin = 1;
        settings.limits.progress_timeout = "5s".parse().unwrap();
        settings.origins.connection_wait = "100ms".parse().unwrap();
    })
    .await;
    let holding = proxy.client.get(proxy.url("/holds")).send();
    let waiting = async {
        wait_until("it is asked", async || !origin.asked().is_empty()).await;
        proxy.get("/waits").await
    };
    tokio::select! {
        _ = holding => panic!("it is never answered"),
        refused = waiting => {
            assert_eq!(refused.status(), 503);
            let text = String::from_utf8(body(refused).await).unwrap();
            assert!(text.contains("in use"), "{text}");
        }
    }
}

#[tokio::test]
async fn a_connection_that_turns_out_dead_is_replaced_for_idempotent_requests_alone() {
    let origin = Origin::start(|asked| {
        if asked.field("x-first").is_some() {
            return reply("200 OK", &[STALE], b"kept alive");
        }
        vec![Step::Break]
    })
    .await;
    let proxy = Proxy::with(origin.address, |settings| settings.origins.attempts = 1).await;
    for (method, asked) in [(reqwest::Method::POST, 1), (reqwest::Method::GET, 2)] {
        let path = format!("/{method}");
        assert_eq!(
            proxy.with_fields("/warm", &[("X-First", "1")]).await.status(),
            200
        );
        let sent = proxy
            .client
            .request(method, proxy.url(&path))
            .send()
            .await
            .unwrap();
        assert_eq!(sent.status(), 502);
        assert_eq!(origin.count(&path), asked, "{path}");
    }
}

#[tokio::test]
async fn p11_retry_after_is_waited_for_where_it_is_short_and_then_answered() {
    let times = AtomicUsize::new(0);
    let origin = Origin::start(move |_| match times.fetch_add(1, Ordering::Relaxed) {
        0 => reply("503 Service Unavailable", &[("Retry-After", "1")], b"wait"),
        _ => reply("200 OK", &[FRESH], b"here"),
    })
    .await;
    let proxy = Proxy::start(origin.address).await;
    let began = Instant::now();
    assert_eq!(body(proxy.get("/a").await).await, b"here");
    assert!(began.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn p11_a_long_retry_after_is_remembered_so_that_the_herd_does_not_hammer() {
    let origin = Origin::start(|asked| match asked.path.as_str() {
        "/stored" if asked.field("if-none-match").is_none() => reply("200 OK", &[STALE, TAG], b"stored"),
        "/fine" => reply("200 OK", &[STALE], b"fine"),
        _ => reply("429 Too Many Requests", &[("Retry-After", "120")], b"not now"),
    })
    .await;
    let proxy = Proxy::start(origin.address).await;
    assert_eq!(body(proxy.get("/stored").await).await, b"stored");
    for path in ["/a", "/b"] {
        let own_words = proxy.get(path).await;
        assert_eq!(
            (own_words.status().as_u16(), field(&own_words, "retry-after")),
            (429, "120")
        );
        assert_eq!(proxy.get(path).await.status(), 503, "it said so");
    }
    // Two URLs do not speak for all of them, and what answers says that they do not.
    assert_eq!(body(proxy.get("/fine").await).await, b"fine");
    for path in ["/c", "/d", "/e"] {
        assert_eq!(proxy.get(path).await.status(), 429, "{path}");
    }
    let (began, before) = (Instant::now(), origin.asked().len());
    for nth in 0..20 {
        let refused = proxy.get(&format!("/herd/{nth}")).await;
        assert!(matches!(refused.status().as_u16(), 503 | 429));
        let wait: u64 = field(&refused, "retry-after").parse().unwrap();
        assert!((100..=120).contains(&wait), "{wait}");
    }
    // At most one of them a second was a trial.
    let trials = (origin.asked().len() - before) as u64;
    assert!(trials <= began.elapsed().as_secs(), "{trials} of 20");
    // What is stored stands in.
    assert_eq!(body(proxy.get("/stored").await).await, b"stored");
    assert_eq!(origin.count("/stored"), 1);
}

#[tokio::test]
async fn p17_credentials_do_not_follow_a_redirect_to_another_origin() {
    let elsewhere = Origin::start(|_| reply("200 OK", &[FRESH], b"elsewhere")).await;
    let location = format!("http://{}/signed?sig=secret", elsewhere.address);
    let origin = Origin::start(move |asked| match asked.path.as_str() {
        "/same" => reply("302 Found", &[("Location", "/here")], b""),
        "/away" => reply("302 Found", &[("Location", &location), FRESH], b"a small page"),
        _ => reply("200 OK", &[FRESH], b"here"),
    })
    .await;
    let addresses = [origin.address, elsewhere.address];
    let proxy = Proxy::with(origin.address, |settings| {
        let url = |address: &SocketAddr| format!("http://user:pass@{address}/");
        // The second upstream names the address that the redirect leads to.
        settings.upstreams = vec![
            format!("o={}", url(&addresses[0])).parse().unwrap(),
            format!("other=http://{}/", addresses[1]).parse().unwrap(),
        ];
    })
    .await;
    assert_eq!(body(proxy.get("/same").await).await, b"here");
    let cookie = [("Cookie", "session=1")];
    assert_eq!(
        body(proxy.with_fields("/away", &cookie).await).await,
        b"elsewhere"
    );
    let basic = Some("Basic dXNlcjpwYXNz");
    assert!(
        origin
            .asked()
            .iter()
            .all(|asked| asked.field("authorization") == basic)
    );
    let there = &elsewhere.asked()[0];
    assert_eq!(
        (there.field("authorization"), there.field("cookie")),
        (None, None)
    );
    // Asked again, it is answered from the store, under the URL that was asked.
    assert_eq!(body(proxy.get("/away").await).await, b"elsewhere");
    assert_eq!((origin.count("/away"), elsewhere.asked().len()), (1, 1));
}

#[tokio::test]
async fn p18_no_redirect_leads_around_the_clients_of_another_upstream() {
    let closed = Origin::start(|_| reply("200 OK", &[FRESH], b"for few")).await;
    let location = format!("http://{}/secret", closed.address);
    let origin = Origin::start(move |_| reply("302 Found", &[("Location", &location), FRESH], b"")).await;
    let address = closed.address;
    let proxy = Proxy::with(origin.address, |settings| {
        let mut few: kato_proxy::settings::Upstream = format!("few=http://{address}/").parse().unwrap();
        few.clients = Some(vec!["192.0.2.0/24".to_owned().try_into().unwrap()]);
        settings.upstreams.push(few);
    })
    .await;
    let refused = proxy.get("/a").await;
    assert!(refused.status().is_client_error() || refused.status().is_server_error());
    assert!(closed.asked().is_empty());
}

#[tokio::test]
async fn p17_a_resumption_asks_the_original_url_again_since_a_signature_may_have_run_out() {
    let whole = content(1 << 20);
    let sent = whole.clone();
    let signatures = Arc::new(AtomicUsize::new(0));
    let origin = Origin::start(move |asked| {
        if asked.path == "/blob" {
            let signature = signatures.fetch_add(1, Ordering::Relaxed);
            return reply(
                "307 Temporary Redirect",
                &[("Location", &format!("/cdn?sig={signature}"))],
                b"",
            );
        }
        match asked.field("range") {
            None => breaking(sent.clone(), "\"one\"", true)(asked),
            Some(_) if asked.path == "/cdn?sig=1" => breaking(sent.clone(), "\"one\"", false)(asked),
            Some(_) => reply("403 Forbidden", &[], b"the signature has run out"),
        }
    })
    .await;
    let proxy = Proxy::start(origin.address).await;
    assert_eq!(body(proxy.get("/blob").await).await, whole);
    assert_eq!((origin.count("/blob"), origin.count("/cdn?sig=0")), (2, 1));
}

/// A parent proxy: answers what it is asked in absolute-form itself.
async fn parent(status: &'static str) -> Origin {
    Origin::start(move |asked| {
        if asked.method == "CONNECT" {
            return reply(status, &[("Proxy-Authenticate", "Basic realm=\"inner\"")], b"no");
        }
        reply(status, &[FRESH], asked.path.as_bytes())
    })
    .await
}

#[tokio::test]
async fn a_parent_is_asked_in_absolute_form_with_its_credentials_and_never_by_name_alone() {
    let parent = parent("200 OK").await;
    let address = parent.address;
    let proxy = Proxy::with(parent.address, |settings| {
        settings.upstreams = vec!["o=http://pkg.example/deep".parse().unwrap()];
        let url = format!("http://user:pass@{address}");
        settings.upstreams[0].proxy = Some(ParentProxy::try_from(url).unwrap());
    })
    .await;
    assert_eq!(
        body(proxy.get("/a?b").await).await,
        b"http://pkg.example/deep/a?b"
    );
    let asked = &parent.asked()[0];
    assert_eq!(asked.field("host"), Some("pkg.example"));
    assert_eq!(asked.field("proxy-authorization"), Some("Basic dXNlcjpwYXNz"));
}

#[tokio::test]
async fn a_parent_that_refuses_is_told_from_an_origin_that_does() {
    for (status, url, expected) in [
        (
            "407 Proxy Authentication Required",
            "http://pkg.example/",
            "wants credentials",
        ),
        (
            "407 Proxy Authentication Required",
            "https://pkg.example/",
            "realm",
        ),
        (
            "403 Forbidden",
            "https://pkg.example/",
            "403 to CONNECT pkg.example:443",
        ),
    ] {
        let parent = parent(status).await;
        let address = parent.address;
        let proxy = Proxy::with(parent.address, |settings| {
            settings.upstreams = vec![format!("o={url}").parse().unwrap()];
            settings.upstreams[0].proxy = Some(ParentProxy::try_from(format!("http://{address}")).unwrap());
        })
        .await;
        let refused = proxy.get("/a").await;
        assert_eq!(refused.status(), 502);
        let text = String::from_utf8(body(refused).await).unwrap();
        assert!(text.contains(expected) && text.contains("parent proxy"), "{text}");
        assert_eq!(parent.asked().len(), 1, "refused credentials are not tried again");
    }
}
