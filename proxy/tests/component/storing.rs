//! The store on disk: what others can read there, what survives, what goes when room is needed.

use std::{fs, path::PathBuf};

use kato_proxy::{App, StartError, store::OpenError};
use kato_shared::{clock::Clock, settings::ByteSize};

use crate::{
    Proxy, body, content, field,
    origin::{Origin, reply},
    settings, wait_until,
};

const FRESH: (&str, &str) = ("Cache-Control", "max-age=3600");

/// An origin whose content depends on the path alone.
async fn by_path(length: usize) -> Origin {
    Origin::start(move |asked| {
        let mut whole = content(length);
        whole[..asked.path.len()].copy_from_slice(asked.path.as_bytes());
        reply("200 OK", &[FRESH], &whole)
    })
    .await
}

fn content_files(proxy: &Proxy) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![proxy.dir.path().join("content-v2")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(path);
            }
        }
    }
    found
}

async fn stored(proxy: &Proxy, responses: u64) {
    wait_until("the responses are stored", async || {
        let stats = proxy.stats().await;
        stats.stored_responses == responses && stats.queued_responses == 0
    })
    .await;
}

#[tokio::test]
async fn a_stock_cacache_reader_reads_the_content_back() {
    let origin = by_path(300_000).await;
    let proxy = Proxy::start(origin.address).await;
    let whole = body(proxy.get("/a").await).await;
    stored(&proxy, 1).await;
    let integrity = ssri::IntegrityOpts::new()
        .algorithm(ssri::Algorithm::Sha256)
        .chain(&whole)
        .result();
    assert_eq!(
        cacache::read_hash_sync(proxy.dir.path(), &integrity).unwrap(),
        whole
    );
}

#[tokio::test]
async fn the_same_content_under_two_names_is_stored_once() {
    let origin = Origin::start(|_| reply("200 OK", &[FRESH], &content(300_000))).await;
    let proxy = Proxy::start(origin.address).await;
    for path in ["/a", "/b"] {
        body(proxy.get(path).await).await;
    }
    stored(&proxy, 2).await;
    assert_eq!(content_files(&proxy).len(), 1);
    assert_eq!(proxy.stats().await.stored_bytes, 300_000);
}

#[tokio::test]
async fn content_that_was_damaged_on_disk_is_fetched_again_unnoticed() {
    let origin = by_path(300_000).await;
    let proxy = Proxy::start(origin.address).await;
    let whole = body(proxy.get("/a").await).await;
    stored(&proxy, 1).await;
    fs::File::options()
        .write(true)
        .open(&content_files(&proxy)[0])
        .unwrap()
        .set_len(1000)
        .unwrap();
    assert!(body(proxy.get("/a").await).await == whole);
    stored(&proxy, 1).await;
    fs::remove_file(&content_files(&proxy)[0]).unwrap();
    assert!(body(proxy.get("/a").await).await == whole);
    assert_eq!(origin.count("/a"), 3);
}

/// Overwrites the beginning of the one content file; its size stays.
fn damage(proxy: &Proxy) {
    fs::File::options()
        .write(true)
        .open(&content_files(proxy)[0])
        .and_then(|mut file| std::io::Write::write_all(&mut file, b"damage"))
        .unwrap();
}

#[tokio::test]
async fn a_small_body_that_was_damaged_without_changing_its_size_is_never_served() {
    let origin = by_path(2000).await;
    // Without a memory tier, which would not read the file at all.
    let proxy = Proxy::with(origin.address, |settings| {
        settings.cache.memory = ByteSize::new(0);
    })
    .await;
    let whole = body(proxy.get("/a").await).await;
    stored(&proxy, 1).await;
    damage(&proxy);
    for _ in 0..2 {
        assert!(body(proxy.get("/a").await).await == whole);
        stored(&proxy, 1).await;
    }
    assert_eq!(origin.count("/a"), 2);
}

#[tokio::test]
async fn damaged_content_is_healed_by_the_same_content_under_another_name() {
    let origin = Origin::start(|_| reply("200 OK", &[FRESH], &content(300_000))).await;
    let proxy = Proxy::start(origin.address).await;
    body(proxy.get("/a").await).await;
    stored(&proxy, 1).await;
    damage(&proxy);
    body(proxy.get("/b").await).await;
    stored(&proxy, 2).await;
    for path in ["/a", "/b"] {
        let served = proxy.get(path).await;
        assert!(field(&served, "cache-status").contains("hit"), "{path}");
        assert!(body(served).await == content(300_000), "{path}");
    }
    assert_eq!(content_files(&proxy).len(), 1);
}

#[tokio::test]
async fn verify_finds_damage_that_the_size_does_not_show() {
    let origin = by_path(300_000).await;
    let proxy = Proxy::start(origin.address).await;
    body(proxy.get("/a").await).await;
    body(proxy.get("/b").await).await;
    stored(&proxy, 2).await;
    damage(&proxy);
    let url = format!("http://{}/-/api/verify", proxy.admin);
    let report = body(
        proxy
            .client
            .post(url)
            .header("kato-admin", "1")
            .send()
            .await
            .unwrap(),
    )
    .await;
    let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
    assert_eq!(
        (
            report["checked"].as_u64(),
            report["damaged"].as_array().unwrap().len()
        ),
        (Some(2), 1)
    );
    stored(&proxy, 1).await;
}

#[tokio::test]
async fn what_a_killed_process_left_is_removed_at_start() {
    let origin = by_path(300_000).await;
    let proxy = Proxy::start(origin.address).await;
    let whole = body(proxy.get("/a").await).await;
    stored(&proxy, 1).await;
    let dir = proxy.stop().await;
    // A body half received; content that was moved in, and the index not told; a marker whose content the index knows.
    let digest = kato_shared::Digest::of(b"orphan").hex();
    let orphan = dir
        .path()
        .join(format!("content-v2/sha256/{}/{}", &digest[..2], &digest[2..4]));
    fs::create_dir_all(&orphan).unwrap();
    let orphan = orphan.join(&digest[4..]);
    let known = kato_shared::Digest::of(&whole).hex();
    for path in [
        dir.path().join("tmp/0.part"),
        dir.path().join(format!("tmp/{digest}.moving")),
        dir.path().join(format!("tmp/{known}.moving")),
        orphan.clone(),
    ] {
        fs::copy(dir.path().join("CACHEDIR.TAG"), path).unwrap();
    }
    let proxy = Proxy::in_folder(dir, origin.address, |_| {}).await;
    assert_eq!(fs::read_dir(proxy.dir.path().join("tmp")).unwrap().count(), 0);
    assert!(!orphan.exists());
    let hit = proxy.get("/a").await;
    assert!(field(&hit, "cache-status").contains("hit"));
    assert!(body(hit).await == whole);
}

#[tokio::test]
async fn the_least_recently_used_content_goes_when_the_quota_is_full() {
    let origin = by_path(1 << 20).await;
    let proxy = Proxy::with(origin.address, |settings| {
        settings.cache.max_size = ByteSize::mib(3);
    })
    .await;
    for path in ["/a", "/b", "/c"] {
        body(proxy.get(path).await).await;
    }
    stored(&proxy, 3).await;
    // Times of use have seconds: what was stored first is also what was used last long enough ago.
    body(proxy.get("/d").await).await;
    stored(&proxy, 3).await;
    assert!(proxy.stats().await.stored_bytes <= 3 << 20);
    assert_eq!(content_files(&proxy).len(), 3);
    let hit = proxy.get("/d").await;
    assert!(field(&hit, "cache-status").contains("hit"));
}

#[tokio::test]
async fn a_folder_that_is_in_use_or_not_ours_is_refused_and_left_alone() {
    let origin = by_path(100).await;
    let proxy = Proxy::start(origin.address).await;
    let refusal = async |dir: &std::path::Path| match App::build(
        settings(dir, origin.address),
        Clock::system(),
    )
    .await
    {
        Err(StartError::Store(error)) => error,
        other => panic!("{other:?}"),
    };
    assert!(matches!(
        refusal(proxy.dir.path()).await,
        OpenError::Locked { .. }
    ));
    let foreign = tempfile::tempdir().unwrap();
    fs::create_dir(foreign.path().join("index-v5")).unwrap();
    assert!(matches!(refusal(foreign.path()).await, OpenError::Foreign { .. }));
    assert_eq!(fs::read_dir(foreign.path()).unwrap().count(), 1);
    let other = tempfile::tempdir().unwrap();
    fs::copy("Cargo.toml", other.path().join("index.redb")).unwrap();
    assert!(matches!(refusal(other.path()).await, OpenError::Foreign { .. }));
}

#[tokio::test]
async fn purging_forgets_names_and_the_next_request_fetches_again() {
    let origin = by_path(1000).await;
    let proxy = Proxy::start(origin.address).await;
    for path in ["/a/1", "/a/2", "/b"] {
        body(proxy.get(path).await).await;
    }
    stored(&proxy, 3).await;
    let url = format!(
        "http://{}/-/api/purge?prefix=http://{}/a/",
        proxy.admin, origin.address
    );
    let unguarded = proxy.client.post(&url).send().await.unwrap();
    assert_eq!(unguarded.status(), 403, "a web page could have sent this");
    let request = proxy.client.post(url).header("kato-admin", "1");
    let report: serde_json::Value =
        serde_json::from_slice(&body(request.send().await.unwrap()).await).unwrap();
    assert_eq!(
        (&report["selected"], &report["bytes"]),
        (&2.into(), &2000.into()),
        "{report}"
    );
    body(proxy.get("/a/1").await).await;
    body(proxy.get("/b").await).await;
    assert_eq!((origin.count("/a/1"), origin.count("/b")), (2, 1));
}

#[tokio::test]
async fn a_damaged_index_is_set_aside_and_the_cache_begins_anew() {
    let origin = by_path(300_000).await;
    for damage in ["cut", "overwritten"] {
        let proxy = Proxy::start(origin.address).await;
        let whole = body(proxy.get("/a").await).await;
        stored(&proxy, 1).await;
        let dir = proxy.stop().await;
        let index = dir.path().join("index.redb");
        let length = fs::metadata(&index).unwrap().len();
        let file = fs::File::options().write(true).open(&index).unwrap();
        if damage == "cut" {
            file.set_len(length / 2).unwrap();
        } else {
            std::os::unix::fs::FileExt::write_all_at(&file, &[0xA5; 4096], 64).unwrap();
        }
        drop(file);
        let proxy = Proxy::in_folder(dir, origin.address, |_| {}).await;
        assert!(proxy.dir.path().join("index.redb.damaged").exists(), "{damage}");
        assert!(content_files(&proxy).is_empty(), "{damage}");
        assert!(body(proxy.get("/a").await).await == whole, "{damage}");
        stored(&proxy, 1).await;
    }
}

/// An upstream of releases: consistent snapshots name their content.
fn release(settings: &mut kato_proxy::settings::Settings) {
    settings.upstreams[0].kind = kato_proxy::settings::Kind::Release;
}

#[tokio::test]
async fn content_whose_digest_the_url_tells_is_verified_and_never_validated() {
    let good = content(300_000);
    let digest = kato_shared::Digest::of(&good).hex();
    let served = good.clone();
    let origin = Origin::start(move |asked| {
        let rule = [("Cache-Control", "no-cache, max-age=0")];
        if asked.path.contains("lie") {
            return reply("200 OK", &rule, &content(300_001)[1..]);
        }
        reply("200 OK", &rule, &served)
    })
    .await;
    let proxy = Proxy::with(origin.address, release).await;
    for _ in 0..2 {
        assert!(body(proxy.get(&format!("/targets/{digest}.module")).await).await == good);
    }
    // The same bytes under another name: no second download.
    let other = proxy.get(&format!("/elsewhere/{digest}.renamed")).await;
    assert!(field(&other, "cache-status").contains("hit"));
    assert!(body(other).await == good);
    assert_eq!(origin.asked().len(), 1);
    let wanted = kato_shared::Digest::of(b"something else").hex();
    let lie = proxy.get(&format!("/lie/{wanted}.module")).await;
    // A problem, or a broken body where some of it was on its way already.
    assert!(
        lie.status() == 502 || lie.bytes().await.is_err(),
        "other content than the digest was passed off as whole"
    );
    assert_eq!(content_files(&proxy).len(), 1);
}

#[tokio::test]
async fn the_same_content_that_arrives_under_many_names_at_once_is_stored_under_each() {
    let origin = Origin::start(|_| reply("200 OK", &[FRESH], b"the same")).await;
    let proxy = std::sync::Arc::new(Proxy::start(origin.address).await);
    let mut clients = tokio::task::JoinSet::new();
    for nth in 0..32 {
        let proxy = std::sync::Arc::clone(&proxy);
        clients.spawn(async move { body(proxy.get(&format!("/{nth}")).await).await });
    }
    while let Some(got) = clients.join_next().await {
        assert_eq!(got.unwrap(), b"the same");
    }
    stored(&proxy, 32).await;
    assert_eq!(content_files(&proxy).len(), 1);
}
