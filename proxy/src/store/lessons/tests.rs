//! What is learned, for how long, and what a kill leaves.

use std::path::Path;

use kato_shared::clock::Clock;
use tokio::task::block_in_place;

use super::{super::stored::sample, *};
use crate::{ecosystem::Integrity, settings, store::KEPT};

fn open(dir: &Path) -> Store {
    let settings = settings::Cache {
        dir: dir.to_owned(),
        ..settings::Cache::default()
    };
    Store::open(&settings, Clock::system()).unwrap()
}

/// A document, and the upstream that it is of.
const TEACHER: (&str, &str) = ("http://deb.example/Packages", "deb");

fn key(name: &str) -> String {
    format!("GET http://deb.example/{name}")
}

fn known(text: &str) -> Known {
    Known::sha256(Digest::of(text.as_bytes()), Some(text.len() as u64))
}

/// Learns `names` with content that is the name and `version`.
fn learn(store: &Store, version: &str, names: &[&str]) -> u64 {
    let lessons = names
        .iter()
        .map(|name| Ok((key(name), known(&format!("{name} {version}")))));
    let document = Digest::of(version.as_bytes());
    block_in_place(|| store.learn(TEACHER, document, lessons)).unwrap()
}

async fn taught(store: &Store, name: &str) -> Vec<Known> {
    let entry = store.lookup(&key(name)).await;
    entry.taught().iter().map(|taught| taught.known).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_learned_is_seen_at_once_and_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    // It is in memory that nothing is known.
    assert!(taught(&store, "a").await.is_empty());
    assert_eq!(learn(&store, "1", &["a", "b"]), 2);
    assert_eq!(taught(&store, "a").await, [known("a 1")]);
    let document = Digest::of(b"1");
    assert!(store.has_learned(TEACHER, document).unwrap());
    assert!(!store.has_learned((TEACHER.0, "other"), document).unwrap());
    drop(store);
    let store = open(dir.path());
    assert_eq!(taught(&store, "b").await, [known("b 1")]);
    assert!(taught(&store, "c").await.is_empty());
    let entry = store.lookup(&key("b")).await;
    assert_eq!(entry.taught()[0].by.teacher, "http://deb.example/Packages");
    assert_eq!(entry.taught()[0].by.document, document);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lessons_of_the_last_generations_count_and_the_latest_comes_first() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for version in ["1", "2", "3", "4"] {
        learn(&store, version, &["a", version]);
    }
    assert_eq!(KEPT, 3);
    assert_eq!(
        taught(&store, "a").await,
        [known("a 4"), known("a 3"), known("a 2")]
    );
    assert!(taught(&store, "1").await.is_empty(), "its generation is gone");
    // The same document again is the latest, and once.
    learn(&store, "3", &["a", "3"]);
    assert_eq!(
        taught(&store, "a").await,
        [known("a 3"), known("a 4"), known("a 2")]
    );
    assert_eq!(taught(&store, "3").await, [known("3 3")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_turns_out_to_be_damaged_teaches_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let lessons = (0..3 * BATCH)
        .map(|nth| Ok((key(&nth.to_string()), known("x"))))
        .chain([Err(LessonError::Damaged { expected: "an end" })]);
    assert!(matches!(
        block_in_place(|| store.learn(TEACHER, Digest::of(b"1"), lessons)),
        Err(LearnError::Document(_))
    ));
    assert!(taught(&store, "0").await.is_empty());
    assert!(store.generations(TEACHER.0).unwrap().is_empty());
    // Its rows are not taken for those of the next.
    learn(&store, "2", &["a"]);
    assert!(taught(&store, "0").await.is_empty());
    assert_eq!(taught(&store, "a").await, [known("a 2")]);
    let forgotten = block_in_place(|| store.forget_lessons()).unwrap();
    assert_eq!(
        forgotten.keys,
        3 * BATCH as u64 + 1,
        "and the document was never stored"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn lessons_go_with_their_document() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let response = sample(b"1");
    let place = store.place(1).unwrap();
    store.put_small(&key("Packages"), response, Bytes::from_static(b"1"), place);
    learn(&store, "1", &["a"]);
    assert_eq!(
        block_in_place(|| store.forget_lessons()).unwrap(),
        Forgotten::default()
    );
    assert_eq!(taught(&store, "a").await, [known("a 1")]);
    store.remove(vec![key("Packages")]).await.unwrap();
    let collected = block_in_place(|| store.collect(|_, _| false)).unwrap();
    assert_eq!(collected.lessons, 1);
    assert!(taught(&store, "a").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_response_is_known_while_its_content_is_taught() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let place = store.place(3).unwrap();
    store.put_small(&key("a"), sample(b"a 1"), Bytes::from_static(b"a 1"), place);
    assert!(!store.lookup(&key("a")).await.heads()[0].known_digest);
    learn(&store, "1", &["a"]);
    let entry = store.lookup(&key("a")).await;
    assert!(entry.heads()[0].known_digest && entry.is_only(&Digest::of(b"a 1")));
    block_in_place(|| store.forget_lessons()).unwrap();
    assert!(!store.lookup(&key("a")).await.heads()[0].known_digest);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promise_by_another_function_is_resolved_once_it_was_proved_and_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let digest = Digest::of(b"a 1");
    let (strong, weak) = (Integrity::Sha512([5; 64]), Integrity::Sha1([1; 20]));
    let promised = |integrity| Known {
        integrity,
        size: None,
    };
    let lessons = [("a", strong), ("b", strong), ("c", weak), ("d", weak)];
    let lessons = lessons.map(|(name, integrity)| Ok((key(name), promised(integrity))));
    block_in_place(|| store.learn(TEACHER, Digest::of(b"1"), lessons.into_iter())).unwrap();
    assert_eq!(taught(&store, "a").await, [promised(strong)]);
    assert_eq!(store.proved(&key("a"), strong).await, None);
    let place = store.place(3).unwrap();
    store.put_small(&key("a"), sample(b"a 1"), Bytes::from_static(b"a 1"), place);
    store.note_proof(&key("a"), strong, digest).await;
    store.note_proof(&key("c"), weak, digest).await;
    let known = Known::sha256(digest, None);
    for _ in 0..2 {
        for (name, expected) in [("a", known), ("b", known), ("c", known), ("d", promised(weak))] {
            assert_eq!(taught(&store, name).await, [expected], "{name}");
        }
        assert!(store.lookup(&key("a")).await.heads()[0].known_digest);
    }
    drop(store);
    let store = open(dir.path());
    for (name, expected) in [("b", known), ("c", known), ("d", promised(weak))] {
        assert_eq!(taught(&store, name).await, [expected], "{name}");
    }
    // What proved it is gone, and so is the proof.
    store.remove(vec![key("a")]).await.unwrap();
    block_in_place(|| store.collect(|_, _| false)).unwrap();
    drop(store);
    let store = open(dir.path());
    assert_eq!(store.proved(&key("b"), strong).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_of_another_upstream_have_no_say() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let place = store.place(3).unwrap();
    store.put_small(&key("a"), sample(b"a 1"), Bytes::from_static(b"a 1"), place);
    learn(&store, "1", &["a"]);
    let entry = store.lookup(&key("a")).await;
    assert!(entry.for_upstreams(|taught| taught.is_of("deb"), false).is_none());
    let other = entry
        .for_upstreams(|taught| taught.is_of("other"), false)
        .unwrap();
    assert!(other.taught().is_empty() && !other.heads()[0].known_digest);
    let for_good = entry.for_upstreams(|taught| taught.is_of("other"), true).unwrap();
    assert!(for_good.heads()[0].known_digest);
}
