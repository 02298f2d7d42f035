//! Origins over TLS: whom the proxy trusts, who it says it is, which HTTP it speaks.

use std::{net::SocketAddr, path::Path, sync::atomic::Ordering};

use kato_proxy::{App, settings::Settings};
use kato_shared::{chain::Chain, clock::Clock, durable};

use crate::{
    Proxy, body,
    origin::{Origin, reply},
    settings,
    tls_origin::{Authority, TlsOrigin},
};

fn trusting(settings: &mut Settings, address: SocketAddr, ca_file: &Path) {
    let mut upstream: kato_proxy::settings::Upstream = format!("o=https://{address}/").parse().unwrap();
    upstream.ca_file = Some(ca_file.to_owned());
    settings.upstreams = vec![upstream];
}

async fn text(proxy: &Proxy, path: &str) -> String {
    String::from_utf8(body(proxy.get(path).await).await).unwrap()
}

#[tokio::test]
async fn http2_is_spoken_where_the_origin_offers_it_over_one_connection_and_trailers_do_no_harm() {
    let authority = Authority::new("test");
    let origin = TlsOrigin::start(&authority, &["h2", "http/1.1"], None).await;
    let proxy = Proxy::with(origin.address, |settings| {
        trusting(settings, origin.address, &authority.ca_file());
    })
    .await;
    let paths: Vec<_> = (0..8).map(|nth| format!("/{nth}")).collect();
    let mut asked = tokio::task::JoinSet::new();
    for path in paths {
        let (client, url) = (proxy.client.clone(), proxy.url(&path));
        asked.spawn(async move {
            let text = client.get(url).send().await.unwrap().text().await.unwrap();
            assert_eq!(text, format!("HTTP/2.0 {path} certificate=false"));
        });
    }
    while let Some(done) = asked.join_next().await {
        done.unwrap();
    }
    assert_eq!(origin.accepted.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn an_origin_without_http2_is_spoken_to_in_http11_and_its_connection_is_kept() {
    let authority = Authority::new("test");
    let origin = TlsOrigin::start(&authority, &[], None).await;
    let proxy = Proxy::with(origin.address, |settings| {
        trusting(settings, origin.address, &authority.ca_file());
    })
    .await;
    for path in ["/a", "/b", "/c"] {
        assert_eq!(
            text(&proxy, path).await,
            format!("HTTP/1.1 {path} certificate=false")
        );
    }
    assert_eq!(origin.accepted.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn an_authority_that_is_not_trusted_is_told_and_not_tried_again() {
    let (trusted, other) = (Authority::new("trusted"), Authority::new("other"));
    let origin = TlsOrigin::start(&other, &["h2"], None).await;
    let proxy = Proxy::with(origin.address, |settings| {
        trusting(settings, origin.address, &trusted.ca_file());
        settings.origins.attempts = 5;
    })
    .await;
    let refused = proxy.get("/a").await;
    assert_eq!(refused.status(), 502);
    let text = String::from_utf8(body(refused).await).unwrap();
    assert!(
        text.contains("TLS with") && text.contains("certificate"),
        "{text}"
    );
    assert_eq!(proxy.stats().await.upstreams[0].requests, 1);
    // The global file is as good as the upstream's own.
    let globally = Proxy::with(origin.address, |settings| {
        settings.upstreams = vec![format!("o=https://{}/", origin.address).parse().unwrap()];
        settings.origins.ca_file = Some(other.ca_file());
    })
    .await;
    assert_eq!(globally.get("/a").await.status(), 200);
}

#[tokio::test]
async fn a_client_certificate_is_shown_to_the_upstreams_hosts_and_to_no_target_of_a_redirect() {
    let (authority, clients) = (Authority::new("servers"), Authority::new("clients"));
    let elsewhere = TlsOrigin::start(&authority, &["h2"], Some(&clients)).await;
    let origin = TlsOrigin::start(&authority, &["h2"], Some(&clients)).await;
    let (certificate, key) = clients.issue("proxy.example");
    let proxy = Proxy::with(origin.address, |settings| {
        trusting(settings, origin.address, &authority.ca_file());
        settings.upstreams[0].client_certificate = Some(certificate);
        settings.upstreams[0].client_key = Some(key);
        // So that the guard lets the redirect pass.
        let other = format!("other=https://{}/", elsewhere.address);
        settings.upstreams.push(other.parse().unwrap());
    })
    .await;
    assert_eq!(text(&proxy, "/a").await, "HTTP/2.0 /a certificate=true");
    let away = format!("/redirect?https://{}/there", elsewhere.address);
    assert_eq!(text(&proxy, &away).await, "HTTP/2.0 /there certificate=false");
}

#[tokio::test]
async fn a_file_that_cannot_be_used_is_named_with_what_was_expected() {
    let folder = tempfile::tempdir().unwrap();
    let nonsense = folder.path().join("nonsense.pem");
    durable::write(&nonsense, b"no certificate", 0o600).unwrap();
    for path in [&nonsense, &folder.path().join("missing.pem")] {
        let mut settings = settings(folder.path(), ([127, 0, 0, 1], 1).into());
        settings.upstreams[0].ca_file = Some(path.clone());
        let error = App::build(settings, Clock::system()).await.unwrap_err();
        let text = Chain(&error).to_string();
        let expected = ["ca_file", &path.display().to_string(), "CERTIFICATE"];
        assert!(expected.iter().all(|part| text.contains(part)), "{text}");
    }
}

#[tokio::test]
async fn a_parent_over_tls_is_spoken_to_in_tls() {
    let authority = Authority::new("test");
    // It answers requests in absolute-form as an origin would.
    let parent = TlsOrigin::start(&authority, &["h2", "http/1.1"], None).await;
    let unused = Origin::start(|_| reply("200 OK", &[], b"")).await;
    let proxy = Proxy::with(unused.address, |settings| {
        settings.upstreams = vec!["o=http://pkg.example/".parse().unwrap()];
        let url = format!("https://{}", parent.address);
        settings.upstreams[0].proxy = Some(url.try_into().unwrap());
        settings.upstreams[0].ca_file = Some(authority.ca_file());
    })
    .await;
    assert_eq!(text(&proxy, "/a").await, "HTTP/1.1 /a certificate=false");
    assert_eq!(unused.asked().len(), 0);
}
