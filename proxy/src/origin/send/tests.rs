//! Requests whose names the test resolves.

use std::{net::IpAddr, sync::atomic::AtomicUsize, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method};
use kato_shared::settings::HumanDuration;
use tokio::net::TcpListener;

use super::{super::ErrorKind, *};
use crate::origin::dns::{Lifetimes, Resolver, tests::Scripted};

const PUBLIC: [u8; 4] = [203, 0, 113, 1];
const THIS_HOST: [u8; 4] = [127, 0, 0, 1];

/// The upstream `u` at `url`, asked once and not for long.
fn settings(url: &str) -> Settings {
    let mut settings = Settings {
        upstreams: vec![format!("u={url}").parse().unwrap()],
        ..Settings::default()
    };
    settings.limits.connect_timeout = HumanDuration::from_secs(1);
    settings.origins.attempts = 1;
    settings
}

/// An origin whose names resolve to `answers`, one after the other, the last for ever.
fn origin(settings: &Settings, answers: &[&[[u8; 4]]]) -> Origin {
    let answers = answers
        .iter()
        .map(|found| Some(found.iter().map(|octets| IpAddr::from(*octets)).collect()));
    let scripted = Arc::new(Scripted {
        answers: std::sync::Mutex::new(answers.collect()),
        asked: AtomicUsize::new(0),
    });
    let lifetimes = Lifetimes {
        timeout: Duration::from_secs(5),
        fresh: Duration::ZERO,
    };
    let setup = Setup::with(settings, Resolver::new(scripted, lifetimes)).unwrap();
    let metrics = Metrics::new(settings);
    Origin::with((settings, setup), (Clock::system(), metrics), <_>::default())
}

fn request(url: &str) -> OriginRequest {
    OriginRequest {
        upstream: "u".into(),
        candidates: vec![Url::parse(url).unwrap()],
        method: Method::GET,
        headers: HeaderMap::new(),
        body: Bytes::new(),
        interim: None,
        has_stand_in: false,
        has_known_digest: false,
    }
}

/// A listener on loopback that must not be connected to.
async fn trap() -> (TcpListener, u16) {
    let trap = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = trap.local_addr().unwrap().port();
    (trap, port)
}

fn is_untouched(trap: TcpListener) -> bool {
    let accepted = trap.into_std().unwrap().accept();
    accepted.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
}

#[tokio::test]
async fn p19_a_name_that_is_bound_to_this_host_later_is_refused_at_the_connection() {
    let (trap, port) = trap().await;
    let url = format!("http://rebinding.example:{port}/");
    let origin = origin(&settings(&url), &[&[PUBLIC], &[THIS_HOST]]);
    let public = origin.send(request(&url)).await.unwrap_err();
    assert_ne!(
        public.kind(),
        ErrorKind::Guarded,
        "nobody is there, but it may be asked"
    );
    let rebound = origin.send(request(&url)).await.unwrap_err();
    assert_eq!(rebound.kind(), ErrorKind::Guarded);
    let tunnel = origin.tunnel("u", "rebinding.example", port).await;
    assert!(tunnel.is_err_and(|error| error.kind() == ErrorKind::Guarded));
    assert!(is_untouched(trap));
}

#[tokio::test]
async fn p19_an_address_of_this_host_among_others_is_left_out() {
    let (trap, port) = trap().await;
    let url = format!("http://mixed.example:{port}/");
    let origin = origin(&settings(&url), &[&[THIS_HOST, PUBLIC]]);
    let error = origin.send(request(&url)).await.unwrap_err();
    assert_ne!(error.kind(), ErrorKind::Guarded);
    assert!(is_untouched(trap));
}

#[tokio::test]
async fn p19_a_parent_is_judged_by_its_address_and_what_it_resolves_by_its_text() {
    let (trap, port) = trap().await;
    let mut settings = settings("http://pkg.example/");
    let parent = format!("http://parent.example:{port}");
    settings.upstreams[0].proxy = Some(parent.try_into().unwrap());
    let origin = origin(&settings, &[&[THIS_HOST]]);
    for url in [
        "http://pkg.example/",
        "https://pkg.example/",
        "http://169.254.169.254/",
        "http://metadata.google.internal/",
        "https://localhost/",
    ] {
        let refused = origin.send(request(url)).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Guarded, "{url}: {}", Chain(&refused));
    }
    assert!(is_untouched(trap));
}
