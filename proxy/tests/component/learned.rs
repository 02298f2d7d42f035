//! Digests that documents teach: what is fetched afterwards is verified, shared and never validated.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use kato_proxy::settings::Kind;
use kato_shared::Digest;

use crate::{
    Proxy, body, content, field,
    origin::{Asked, Origin, Step, reply},
};

const STALE: (&str, &str) = ("Cache-Control", "max-age=0");
const PACKAGES: &str = "/dists/s/main/binary-amd64/Packages";

/// `Packages` that names `files` with the content that they should have.
fn packages(files: &[(&str, &[u8])]) -> Vec<u8> {
    let paragraph = |(name, content): &(&str, &[u8])| {
        let (hex, size) = (Digest::of(content).hex(), content.len());
        format!("Package: p\nFilename: {name}\nSize: {size}\nSHA256: {hex}\n\n")
    };
    files.iter().map(paragraph).collect::<String>().into_bytes()
}

/// An archive in which `Packages` promises `files`, and `served` decides what really comes.
async fn archive(
    files: &'static [(&str, &[u8])],
    served: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static,
) -> (Origin, Proxy) {
    let origin = Origin::start(move |asked: &Asked| -> Vec<Step> {
        if asked.path.ends_with("Packages") {
            reply("200 OK", &[STALE], &packages(files))
        } else {
            reply(
                "200 OK",
                &[STALE, ("ETag", "\"1\"")],
                &served(asked.path.trim_start_matches('/')),
            )
        }
    })
    .await;
    let proxy = Proxy::with(origin.address, |settings| {
        settings.upstreams[0].kind = Kind::Packages;
    })
    .await;
    (origin, proxy)
}

fn times(origin: &Origin, end: &str) -> usize {
    origin
        .asked()
        .iter()
        .filter(|asked| asked.path.ends_with(end))
        .count()
}

#[tokio::test]
async fn what_is_taught_is_verified_shared_and_never_validated() {
    static FILES: &[(&str, &[u8])] = &[("pool/a.deb", b"package a"), ("mirror/a.deb", b"package a")];
    let (origin, proxy) = archive(FILES, |_| b"package a".to_vec()).await;
    body(proxy.get(PACKAGES).await).await;
    assert_eq!(body(proxy.get("/pool/a.deb").await).await, b"package a");
    for path in ["/pool/a.deb", "/mirror/a.deb", "/mirror/a.deb"] {
        let again = proxy.with_fields(path, &[("Cache-Control", "no-cache")]).await;
        assert!(field(&again, "cache-status").contains("hit"), "{path}: {again:?}");
        assert_eq!(body(again).await, b"package a");
    }
    assert_eq!(times(&origin, "a.deb"), 1, "one digest, one download");
}

/// Without any rule about mutability: what the current index names does not change under its name.
#[tokio::test]
async fn what_the_current_index_names_is_never_validated_however_many_indexes_have_named_it() {
    let generation = Arc::new(AtomicUsize::new(0));
    let current = Arc::clone(&generation);
    let origin = Origin::start(move |asked: &Asked| -> Vec<Step> {
        let nth = current.load(Ordering::Relaxed);
        if asked.path.ends_with("Packages") {
            let passing = format!("pool/of-{nth}.deb");
            let files: [(&str, &[u8]); 2] = [("pool/a.deb", b"package a"), (&passing, passing.as_bytes())];
            return reply("200 OK", &[STALE], &packages(&files));
        }
        reply("200 OK", &[STALE, ("ETag", "\"1\"")], b"package a")
    })
    .await;
    let proxy = Proxy::with(origin.address, |settings| {
        settings.upstreams[0].kind = Kind::Packages;
    })
    .await;
    for nth in 0..6 {
        generation.store(nth, Ordering::Relaxed);
        body(proxy.get(PACKAGES).await).await;
        let got = proxy
            .with_fields("/pool/a.deb", &[("Cache-Control", "no-cache")])
            .await;
        assert_eq!(body(got).await, b"package a");
    }
    assert_eq!(times(&origin, "Packages"), 6, "each index was read");
    assert_eq!(times(&origin, "a.deb"), 1, "named by each, fetched once");
}

#[tokio::test]
async fn other_content_than_is_taught_is_fetched_twice_and_refused_with_both_digests() {
    static FILES: &[(&str, &[u8])] = &[("pool/a.deb", b"package a")];
    let (origin, proxy) = archive(FILES, |_| b"package b".to_vec()).await;
    body(proxy.get(PACKAGES).await).await;
    let refused = proxy.get("/pool/a.deb").await;
    assert_eq!(refused.status(), 502);
    let text = String::from_utf8(body(refused).await).unwrap();
    for content in [b"package a", b"package b"] {
        assert!(text.contains(&Digest::of(content).hex()), "{text}");
    }
    assert_eq!(times(&origin, "a.deb"), 2);
    assert_eq!(proxy.stats().await.stored_responses, 1, "the index alone");
}

#[tokio::test]
async fn another_size_than_is_taught_is_refused_before_the_body() {
    static FILES: &[(&str, &[u8])] = &[("pool/a.deb", b"package a")];
    let (origin, proxy) = archive(FILES, |_| content(1 << 20)).await;
    body(proxy.get(PACKAGES).await).await;
    let refused = proxy.get("/pool/a.deb").await;
    assert_eq!(refused.status(), 502);
    let text = String::from_utf8(body(refused).await).unwrap();
    assert!(
        text.contains("expected 9 bytes") && text.contains("1048576"),
        "{text}"
    );
    assert_eq!(times(&origin, "a.deb"), 2);
}

#[tokio::test]
async fn what_was_stored_before_the_lesson_is_kept_if_it_is_right_and_replaced_if_it_is_not() {
    static FILES: &[(&str, &[u8])] = &[("pool/a.deb", b"package a"), ("pool/b.deb", b"package b")];
    let asked = AtomicUsize::new(0);
    let (origin, proxy) = archive(FILES, move |path| {
        let nth = asked.fetch_add(1, Ordering::SeqCst);
        let is_old = nth < 2 && path.ends_with("b.deb");
        if is_old {
            b"package B".to_vec()
        } else {
            format!("package {}", &path[5..6]).into_bytes()
        }
    })
    .await;
    assert_eq!(body(proxy.get("/pool/a.deb").await).await, b"package a");
    assert_eq!(body(proxy.get("/pool/b.deb").await).await, b"package B");
    body(proxy.get(PACKAGES).await).await;
    assert_eq!(body(proxy.get("/pool/a.deb").await).await, b"package a");
    assert_eq!(body(proxy.get("/pool/b.deb").await).await, b"package b");
    assert_eq!((times(&origin, "a.deb"), times(&origin, "b.deb")), (1, 2));
}

/// Large bodies go another way than small ones.
#[tokio::test]
async fn a_large_package_is_verified_and_a_large_index_teaches() {
    let whole = content(600_000);
    let text = packages(&[("pool/a.deb", &whole)]);
    let padding = format!("Package: padding\nDescription: {}\n\n", "x".repeat(600_000));
    let index = [padding.as_bytes(), &text].concat();
    let sent = whole.clone();
    let origin = Origin::start(move |asked: &Asked| -> Vec<Step> {
        let body = if asked.path.ends_with("Packages") {
            &index
        } else {
            &sent
        };
        reply("200 OK", &[STALE], body)
    })
    .await;
    let proxy = Proxy::with(origin.address, |settings| {
        settings.upstreams[0].kind = Kind::Packages;
    })
    .await;
    body(proxy.get(PACKAGES).await).await;
    for _ in 0..2 {
        assert!(body(proxy.get("/pool/a.deb").await).await == whole);
    }
    assert_eq!(times(&origin, "a.deb"), 1);
}
