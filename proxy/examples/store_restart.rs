//! How long a store of many objects takes to answer its first lookup after a start, and what it takes in memory.
//!
//! ```text
//! cargo run -p kato-proxy --example store_restart -- fill DIR 100000     # then: a line on stdin stops it cleanly, SIGKILL does not
//! cargo run -p kato-proxy --example store_restart -- open DIR 100000
//! ```
//! `open` prints the time from the beginning of `main` to the first stored body, the time until the order of eviction is known,
//! and the growth of resident memory per object: after that, and after each object was looked up once.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a measurement for people"
)]

use std::{io::stdin, path::PathBuf};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use kato_proxy::{
    policy::{Selecting, Stored, Times},
    settings::Cache,
    store::{ContentRef, Store, StoredResponse},
};
use kato_shared::{Digest, clock::Clock, settings::ByteSize};
use tokio::time::Instant;

fn main() {
    let started = Instant::now();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [verb, dir, count] = arguments.as_slice() else {
        println!("usage: store_restart fill|open DIR COUNT");
        return;
    };
    let count: u64 = count.parse().unwrap();
    let settings = Cache {
        dir: PathBuf::from(dir),
        min_free: ByteSize::new(0),
        memory: ByteSize::new(0),
        ..Cache::default()
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let before = resident();
    let store = Store::open(&settings, Clock::system()).unwrap();
    match verb.as_str() {
        "fill" => fill(&store, count, started),
        _ => runtime.block_on(open(&store, count, started, before)),
    }
}

fn key(nth: u64) -> String {
    format!("GET http://mirror.example/debian/pool/main/p/package-{nth}/package-{nth}_1.2.3-4_amd64.deb")
}

fn fill(store: &Store, count: u64, started: Instant) {
    for nth in 0..count {
        let body = Bytes::from(format!("content {nth}"));
        let place = loop {
            match store.place(body.len() as u64) {
                Some(place) => break place,
                None => store.flush(),
            }
        };
        store.put_small(&key(nth), response(&body), body, place);
    }
    store.flush();
    store.upkeep().unwrap();
    println!("{count} objects in {:?}", started.elapsed());
    stdin().read_line(&mut String::new()).unwrap();
}

async fn open(store: &Store, count: u64, started: Instant, before: u64) {
    let found = store.lookup(&key(count / 2)).await;
    let content = store.content(found.content(0)).await;
    println!(
        "first body after       {:?} ({} bytes)",
        started.elapsed(),
        content.unwrap().length()
    );
    while !store.figures().is_loaded {
        tokio::task::yield_now().await;
    }
    println!("all known after        {:?}", started.elapsed());
    let figures = store.figures();
    println!("eviction, per object   {} bytes", figures.memory as u64 / count);
    println!(
        "resident, per object   {} bytes",
        resident().saturating_sub(before) / count
    );
    let looking = Instant::now();
    for nth in 0..count {
        assert_eq!(store.lookup(&key(nth)).await.heads().len(), 1);
    }
    println!(
        "after {count} lookups {} bytes ({:?})",
        resident().saturating_sub(before) / count,
        looking.elapsed()
    );
}

fn response(body: &[u8]) -> StoredResponse {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("content-type", "application/vnd.debian.binary-package"),
        ("last-modified", "Sat, 01 Jan 2022 00:00:00 GMT"),
        ("etag", "\"5f3c-1234567890abc\""),
        ("cache-control", "public, max-age=31536000"),
    ] {
        headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    let now = Clock::system().now();
    StoredResponse {
        head: Stored {
            status: StatusCode::OK,
            headers,
            times: Times {
                request: now,
                response: now,
            },
            selecting: Selecting::default(),
            known_digest: false,
            invalidated: false,
            found_at: None,
        },
        content: ContentRef {
            digest: Digest::of(body),
            length: body.len() as u64,
        },
        upstream: "debian".into(),
    }
}

/// Resident memory in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    line.trim_end_matches("kB").trim().parse::<u64>().unwrap() * 1024
}
