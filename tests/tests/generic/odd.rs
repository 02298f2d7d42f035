//! Odd answers of a host: what they take away, and how often they are asked for.

use anyhow::Result;
use integration_tests::origin::{Fault, Framing, Gate, Resource};
use tokio::{
    task::JoinSet,
    time::{Duration, timeout},
};

use crate::Site;

/// Long beside anything that loopback does.
const SOON: Duration = Duration::from_secs(20);

/// A page where something else should be.
const PAGE: &str = "<html><title>Login</title><form action=/login><input type=password></form>";

/// Answers that say nothing about a document: status code, content type, content.
const ODD: [(u16, &str, &str); 9] = [
    (200, "text/html", PAGE),
    (200, "application/json", ""),
    (200, "text/plain", "please log in"),
    (204, "text/plain", ""),
    (301, "text/html", PAGE),
    (403, "text/html", PAGE),
    (404, "text/html", PAGE),
    (405, "text/html", PAGE),
    (511, "text/html", PAGE),
];

/// Waits until so many clients have asked for what the origin holds back.
async fn under_way(site: &Site, count: u64) -> Result<()> {
    let connected = async {
        let client = site.proxy.admin_client();
        loop {
            let (_, page) = client.fetch("/-/metrics").await?;
            let page = String::from_utf8_lossy(&page).into_owned();
            let mut lines = page.lines();
            let open = lines.find_map(|line| line.strip_prefix("kato_proxy_open_connections "));
            if open
                .and_then(|open| open.parse().ok())
                .is_some_and(|open: u64| open >= count)
            {
                return anyhow::Ok(());
            }
        }
    };
    timeout(SOON, connected).await??;
    // A way through the server takes longer than what stands in its sockets needs to be read.
    for _ in 0..3 {
        site.get("/nothing").await?;
    }
    Ok(())
}

fn odd((status, kind, content): (u16, &str, &str)) -> Resource {
    Resource::new(content.to_owned())
        .status(status)
        .header("content-type", kind)
}

#[tokio::test]
async fn p10_no_odd_answer_takes_metadata_or_a_sidecar_away() -> Result<()> {
    let timestamp = r#"{"signed":{"_type":"timestamp","version":1},"signatures":[]}"#;
    let sums = format!("{}  a.tar\n", "a".repeat(64));
    for (rules, name, content) in [
        ("kind = \"release\"", "timestamp.json", timestamp),
        ("digests = [\"SHA256SUMS\"]", "SHA256SUMS", sums.as_str()),
    ] {
        let mut site = Site::start(rules).await?;
        for (nth, answer) in ODD.into_iter().enumerate() {
            let path = format!("/{nth}/{name}");
            let good = Resource::new(content.to_owned()).header("cache-control", "max-age=0");
            site.host.serve(&path, good);
            assert_eq!(site.get(&path).await?.0, 200, "{path}");
            site.host.serve(&path, odd(answer));
            for _ in 0..2 {
                let (status, said, body) = site.get(&path).await?;
                let is_held = status == 200 && body == content.as_bytes();
                assert!(
                    is_held || status == answer.0 && status >= 400,
                    "{path} {answer:?}: {status} {said}"
                );
            }
        }
        site.host.stop().await;
        for (nth, answer) in ODD.into_iter().enumerate() {
            let (status, said, body) = site.get(&format!("/{nth}/{name}")).await?;
            assert_eq!((status, &*body), (200, content.as_bytes()), "{answer:?}: {said}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn p10_after_an_error_of_a_moment_the_next_content_is_stored() -> Result<()> {
    let mut site = Site::start("").await?;
    let content = |text: &str| Resource::new(text.to_owned()).header("cache-control", "max-age=0");
    for status in [400, 401, 403, 406, 418, 429, 451] {
        let path = format!("/{status}");
        site.host.serve(&path, content("old"));
        assert_eq!(site.get(&path).await?.0, 200);
        site.host.serve(&path, odd((status, "text/plain", "not now")));
        assert_eq!(site.get(&path).await?.0, status, "passed on");
        site.host.serve(&path, content("new"));
        let (status, said, body) = site.get(&path).await?;
        assert_eq!((status, &*body), (200, &b"new"[..]), "{path}: {said}");
        site.host.serve(&path, content("new").always(Fault::Status(503)));
        let (status, said, body) = site.get(&path).await?;
        assert_eq!((status, &*body), (200, &b"new"[..]), "{path}: {said}");
    }
    site.host.stop().await;
    assert_eq!(site.get("/403").await?.2, b"new");
    Ok(())
}

#[tokio::test]
async fn an_error_that_is_not_stored_is_asked_for_once_by_all_who_wait_for_it() -> Result<()> {
    const CLIENTS: usize = 8;
    let large = "x".repeat(200_000);
    for (status, fields, content, framing, expected) in [
        (403, &[][..], "no", Framing::Length, 1),
        (403, &[], "no", Framing::Chunked, 1),
        (429, &[], "later", Framing::Length, 1),
        (500, &[], "", Framing::Length, 1),
        // What is for one, or larger than an error has to be, is asked for by each.
        (
            403,
            &[("cache-control", "no-store")],
            "no",
            Framing::Length,
            CLIENTS,
        ),
        (403, &[("set-cookie", "a=b")], "no", Framing::Length, CLIENTS),
        (403, &[], large.as_str(), Framing::Chunked, CLIENTS),
        (403, &[], large.as_str(), Framing::Length, CLIENTS),
    ] {
        let site = Site::start("").await?;
        let gate = Gate::closed();
        let denied = Resource::new(content.to_owned()).status(status).framing(framing);
        let denied = fields
            .iter()
            .fold(denied, |denied, (name, value)| denied.header(name, value));
        site.host.serve("/a", denied.fault(Fault::HoldHead(gate.clone())));
        let mut asking = JoinSet::new();
        for _ in 0..CLIENTS {
            let client = site.proxy.client();
            asking.spawn(async move { client.fetch("/files/a").await });
        }
        under_way(&site, CLIENTS as u64).await?;
        gate.open();
        let mut collapsed = 0;
        for answered in asking.join_all().await {
            let (said, body) = answered?;
            assert_eq!(
                (said.status, &*body),
                (status, content.as_bytes()),
                "{status} {fields:?}"
            );
            collapsed += usize::from(said.cache_status().contains("collapsed"));
        }
        let asked = site.host.requests("/a").len();
        assert_eq!(asked, expected, "{status} {fields:?} {framing:?}");
        assert_eq!(collapsed, CLIENTS - expected, "{status} {fields:?} {framing:?}");
        // Nothing of it is kept: who comes later asks anew.
        site.host.serve("/a", Resource::new("better"));
        assert_eq!(site.get("/a").await?.2, b"better");
    }
    Ok(())
}

#[tokio::test]
async fn what_was_said_to_nobody_in_particular_is_no_answer_to_credentials() -> Result<()> {
    let site = Site::start("").await?;
    let gate = Gate::closed();
    site.host.serve(
        "/a",
        Resource::new("who are you")
            .status(401)
            .fault(Fault::HoldHead(gate.clone())),
    );
    let mut asking = JoinSet::new();
    let client = site.proxy.client();
    asking.spawn(async move { client.fetch("/files/a").await });
    site.host.wait_for_requests("/a", 1).await?;
    let client = site.proxy.client();
    let known = client.get("/files/a").header("authorization", "Basic YTpi");
    asking.spawn(async move { known.fetch().await });
    under_way(&site, 2).await?;
    gate.open();
    for answered in asking.join_all().await {
        assert_eq!(answered?.0.status, 401);
    }
    let asked = site.host.requests("/a");
    let credentials: Vec<_> = asked.iter().map(|one| one.header("authorization")).collect();
    assert_eq!(credentials, [None, Some("Basic YTpi")]);
    Ok(())
}
