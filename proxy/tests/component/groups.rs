//! `InRelease` and the indexes that it names: no client ever sees two generations mixed, whenever the origin changes.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use kato_proxy::settings::Kind;
use kato_shared::Digest;
use reqwest::Client;

use crate::{
    Proxy, body, field,
    origin::{Asked, Origin, Step, reply},
};

const INDEXES: [&str; 2] = ["main/binary-amd64/Packages", "main/i18n/Translation-en"];

/// Whether the origin has its indexes by digest, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ByHash {
    /// Those of the generation in force, and no other.
    Current,
    None,
}

fn index(name: &str, generation: usize) -> Vec<u8> {
    format!("Package: {name}\nVersion: {generation}\n").into_bytes()
}

fn release(generation: usize) -> String {
    let lines = INDEXES.map(|name| {
        let content = index(name, generation);
        format!(" {} {} {name}\n", Digest::of(&content).hex(), content.len())
    });
    format!(
        "Suite: s\nVersion: {generation}\nAcquire-By-Hash: yes\nSHA256:\n{}",
        lines.concat()
    )
}

/// A signature of `OpenPGP`, version 4, as far as it shows what it is about: of the binary document, with SHA-256, by nobody.
fn signature(document: &[u8]) -> Vec<u8> {
    let hashed = [4, 0, 22, 8, 0, 0];
    let digest = Digest::of(&[document, &hashed, &[4, 0xFF, 0, 0, 0, 6]].concat());
    let shown = &digest.as_bytes()[..2];
    let body = [&hashed[..], &[0, 0], shown, &[0, 1, 1]].concat();
    [&[0xC2, u8::try_from(body.len()).unwrap()], body.as_slice()].concat()
}

/// An archive whose generation is `flip` times raised: once the `at`-th request after [`Archive::arm`] has come, before it is answered.
struct Archive {
    origin: Origin,
    proxy: Proxy,
    generation: Arc<AtomicUsize>,
    /// Requests until the next flip; far away when it is not armed.
    left: Arc<AtomicUsize>,
}

impl Archive {
    async fn start(by_hash: ByHash) -> Self {
        let generation = Arc::new(AtomicUsize::new(0));
        let left = Arc::new(AtomicUsize::new(usize::MAX));
        let (current, countdown) = (Arc::clone(&generation), Arc::clone(&left));
        let origin = Origin::start(move |asked: &Asked| -> Vec<Step> {
            if countdown.fetch_sub(1, Ordering::SeqCst) == 0 {
                current.fetch_add(1, Ordering::SeqCst);
            }
            let generation = current.load(Ordering::SeqCst);
            answer(asked, generation, by_hash)
        })
        .await;
        let proxy = Proxy::with(origin.address, |settings| {
            settings.upstreams[0].kind = Kind::Packages;
        })
        .await;
        Self {
            origin,
            proxy,
            generation,
            left,
        }
    }

    /// Flips when this many requests have come.
    fn arm(&self, at: usize) {
        self.left.store(at, Ordering::SeqCst);
    }

    fn flip(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
    }

    async fn get(&self, client: &Client, path: &str) -> reqwest::Response {
        let url = self.proxy.url(path);
        let request = client.get(url).header("Cache-Control", "max-age=0");
        request.send().await.unwrap()
    }

    async fn in_release(&self, client: &Client) -> String {
        let response = self.get(client, "/dists/s/InRelease").await;
        assert_eq!(response.status(), 200);
        String::from_utf8(body(response).await).unwrap()
    }

    /// What `apt-get update` does: the document, then each index as the document has it.
    async fn update(&self, client: &Client, by_digest: bool) -> String {
        let release = self.in_release(client).await;
        self.indexes(client, &release, by_digest).await;
        release
    }

    async fn indexes(&self, client: &Client, release: &str, by_digest: bool) {
        for name in INDEXES {
            let line = release.lines().find(|line| line.ends_with(name)).unwrap();
            let expected = line.split_ascii_whitespace().next().unwrap();
            let folder = name.rsplit_once('/').unwrap().0;
            let path = if by_digest {
                format!("/dists/s/{folder}/by-hash/SHA256/{expected}")
            } else {
                format!("/dists/s/{name}")
            };
            let response = self.get(client, &path).await;
            let status = response.status();
            let content = body(response).await;
            assert_eq!(status, 200, "{path}: {}", String::from_utf8_lossy(&content));
            assert_eq!(Digest::of(&content).hex(), expected, "{path}: mixed");
        }
    }
}

fn answer(asked: &Asked, generation: usize, by_hash: ByHash) -> Vec<Step> {
    let tag = format!("\"{generation}\"");
    let fields = [("ETag", tag.as_str()), ("Cache-Control", "max-age=0")];
    let path = asked.path.strip_prefix("/dists/s/").unwrap_or_default();
    if path == "Release.gpg" {
        return reply("200 OK", &fields, &signature(release(generation).as_bytes()));
    }
    if path == "InRelease" || path == "Release" {
        if asked.field("if-none-match") == Some(&tag) {
            return reply("304 Not Modified", &fields, b"");
        }
        return reply("200 OK", &fields, release(generation).as_bytes());
    }
    for name in INDEXES {
        let content = index(name, generation);
        let folder = name.rsplit_once('/').unwrap().0;
        let by_digest = format!("{folder}/by-hash/SHA256/{}", Digest::of(&content).hex());
        if path == name || by_hash == ByHash::Current && path == by_digest {
            return reply("200 OK", &fields, &content);
        }
    }
    reply("404 Not Found", &[], b"")
}

fn client(last: u8) -> Client {
    Client::builder()
        .no_proxy()
        .local_address(std::net::IpAddr::from([127, 0, 0, last]))
        .build()
        .unwrap()
}

#[tokio::test]
async fn p06_no_flip_at_any_request_mixes_generations() {
    for by_hash in [ByHash::Current, ByHash::None] {
        for by_digest in [false, true] {
            for at in 0..8 {
                let archive = Archive::start(by_hash).await;
                let client = client(1);
                // Nothing is known before: an index by digest can be had only where the archive has such.
                archive
                    .update(&client, by_digest && by_hash == ByHash::Current)
                    .await;
                archive.flip();
                archive.arm(at);
                archive.update(&client, by_digest).await;
                archive.arm(usize::MAX);
                let last = archive.update(&client, by_digest).await;
                let generation = archive.generation.load(Ordering::SeqCst);
                assert_eq!(
                    last,
                    release(generation),
                    "{by_hash:?} {by_digest} {at}: it goes on"
                );
            }
        }
    }
}

#[tokio::test]
async fn p06_a_client_that_was_given_the_old_document_gets_its_indexes() {
    for by_digest in [false, true] {
        let archive = Archive::start(ByHash::None).await;
        let (early, late) = (client(1), client(2));
        archive.update(&late, false).await;
        let old = archive.in_release(&early).await;
        archive.flip();
        let new = archive.update(&late, by_digest).await;
        assert_ne!(old, new);
        archive.indexes(&early, &old, by_digest).await;
        archive.indexes(&late, &new, by_digest).await;
        // By digest they are there for everybody, though the origin has no such names.
        archive.indexes(&late, &old, true).await;
        assert_eq!(archive.update(&early, by_digest).await, new);
    }
}

#[tokio::test]
async fn a_generation_whose_indexes_cannot_be_had_is_held_back_and_said_so() {
    let archive = Archive::start(ByHash::None).await;
    let client = client(1);
    let old = archive.update(&client, false).await;
    archive.flip();
    // The document is of the next generation, and when its indexes are asked for, they are of the one after.
    archive.arm(1);
    let response = archive.get(&client, "/dists/s/InRelease").await;
    assert!(
        field(&response, "cache-status").contains("generation-withheld"),
        "{response:?}"
    );
    assert_eq!(String::from_utf8(body(response).await).unwrap(), old);
    archive.indexes(&client, &old, false).await;
    archive.arm(usize::MAX);
    assert_eq!(archive.update(&client, false).await, release(2));
}

#[tokio::test]
async fn each_file_of_a_generation_is_asked_for_once() {
    let archive = Archive::start(ByHash::Current).await;
    for last in 1..5 {
        archive.update(&client(last), last % 2 == 0).await;
    }
    let of = |end: &str| {
        let asked = archive.origin.asked();
        asked
            .iter()
            .filter(|asked| asked.path.contains(end) && asked.field("if-none-match").is_none())
            .count()
    };
    assert_eq!((of("InRelease"), of("binary-amd64"), of("i18n")), (1, 1, 1));
}

/// What apt does where there is no `InRelease`.
async fn signed(archive: &Archive, client: &Client) -> (String, Vec<u8>) {
    let response = archive.get(client, "/dists/s/Release").await;
    assert_eq!(response.status(), 200);
    let release = String::from_utf8(body(response).await).unwrap();
    let response = archive.get(client, "/dists/s/Release.gpg").await;
    assert_eq!(response.status(), 200);
    (release, body(response).await)
}

#[tokio::test]
async fn p06_no_flip_at_any_request_gives_a_release_with_the_signature_of_another() {
    for at in 0..8 {
        let archive = Archive::start(ByHash::None).await;
        let client = client(1);
        // The first time already: nothing is stored that could stand in.
        if at > 3 {
            signed(&archive, &client).await;
            archive.flip();
        }
        archive.arm(at % 4);
        let (release, of) = signed(&archive, &client).await;
        assert_eq!(of, signature(release.as_bytes()), "{at}: mixed");
        archive.arm(usize::MAX);
        let (last, of) = signed(&archive, &client).await;
        assert_eq!(of, signature(last.as_bytes()), "{at}: mixed");
        let generation = archive.generation.load(Ordering::SeqCst);
        assert_eq!(last, self::release(generation), "{at}: it goes on");
    }
}

#[tokio::test]
async fn p06_a_client_that_was_given_the_old_release_gets_its_signature() {
    let archive = Archive::start(ByHash::None).await;
    let (early, late) = (client(1), client(2));
    signed(&archive, &late).await;
    let response = archive.get(&early, "/dists/s/Release").await;
    let old = body(response).await;
    archive.flip();
    let (new, of) = signed(&archive, &late).await;
    assert_ne!(new.as_bytes(), old);
    assert_eq!(of, signature(new.as_bytes()));
    let response = archive.get(&early, "/dists/s/Release.gpg").await;
    assert_eq!(
        body(response).await,
        signature(&old),
        "the signature of what it was given"
    );
}
