//! The store as its users see it, on a real folder: quota, eviction, pins, garbage, older schemas.

mod founding;
mod names;

use std::path::Path;

use kato_shared::{clock::Clock, settings::ByteSize};
use redb::{Database, MultimapTableDefinition, ReadableDatabase, TableDefinition};

use super::{stored::sample, *};

const KIB: usize = 1024;

fn settings(dir: &Path) -> settings::Cache {
    settings::Cache {
        dir: dir.to_owned(),
        max_size: ByteSize::mib(1),
        min_free: ByteSize::new(0),
        ..settings::Cache::default()
    }
}

/// A store that knows everything in it.
fn open(dir: &Path) -> Store {
    let store = Store::open(&settings(dir), Clock::system()).unwrap();
    store.0.index.ledger().wait();
    store
}

/// The store in `dir` once more; the thread that wrote last may hold it for a moment longer.
async fn reopened(dir: &Path) -> Store {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    loop {
        let settings = settings(dir);
        let opening = spawn_blocking(move || Store::open(&settings, Clock::system()));
        match opening.await.unwrap() {
            Err(OpenError::Locked { .. }) if tokio::time::Instant::now() < deadline => {
                tokio::task::yield_now().await;
            }
            opened => {
                let store = opened.unwrap();
                store.0.index.ledger().wait();
                return store;
            }
        }
    }
}

fn key(name: &str) -> String {
    format!("GET http://a.example/{name}")
}

/// `length` bytes that nobody else has.
fn body(name: &str, length: usize) -> Vec<u8> {
    name.bytes().cycle().take(length).collect()
}

/// Stores `body` under the name by way of a file; false when there is no room for it.
async fn put(store: &Store, name: &str, body: &[u8]) -> bool {
    let Ok(mut temporary) = store.begin(body.len() as u64).await else {
        return false;
    };
    std::io::Write::write_all(&mut temporary.file().as_ref(), body).unwrap();
    temporary.grow(body.len() as u64).unwrap();
    store.commit(temporary, key(name), sample(body)).await.unwrap();
    true
}

/// Whether the name is stored and its content can be opened; that is a use.
async fn hits(store: &Store, name: &str) -> bool {
    let found = store.lookup(&key(name)).await;
    if found.heads().is_empty() {
        return false;
    }
    store.content(found.content(0)).await.is_some()
}

fn is_stored(store: &Store, name: &str) -> bool {
    !store.0.index.responses(&key(name)).unwrap().is_empty()
}

/// Runs what blocks off the reactor, as the proxy does.
async fn off<T: Send + 'static>(store: &Store, work: impl FnOnce(&Store) -> T + Send + 'static) -> T {
    let store = store.clone();
    spawn_blocking(move || work(&store)).await.unwrap()
}

fn files(store: &Store) -> usize {
    store.0.layout.content_files().unwrap().len()
}

#[tokio::test]
async fn p14_the_quota_of_bytes_and_of_objects_hold_before_each_fill_and_a_scan_spares_what_is_used() {
    let dir = tempfile::tempdir().unwrap();
    for (max_size, max_objects) in [(1 << 20, 1_000_000), (1 << 30, 16)] {
        let dir = dir.path().join(max_objects.to_string());
        let limits = settings::Cache {
            max_size: ByteSize::new(max_size),
            max_objects,
            ..settings(&dir)
        };
        let store = Store::open(&limits, Clock::system()).unwrap();
        for name in ["used-1", "used-2", "used-3"] {
            assert!(put(&store, name, &body(name, 64 * KIB)).await);
            assert!(hits(&store, name).await);
        }
        for nth in 0..64 {
            let name = format!("once-{nth}");
            assert!(put(&store, &name, &body(&name, 64 * KIB)).await);
            let totals = store.totals().unwrap();
            assert!(
                totals.bytes <= max_size && totals.contents <= max_objects,
                "{totals:?}"
            );
            assert!(is_stored(&store, &name), "{name}");
        }
        for name in ["used-1", "used-2", "used-3"] {
            assert!(hits(&store, name).await, "{name} of {max_objects}");
        }
        assert_eq!(files(&store) as u64, store.totals().unwrap().contents);
        assert!(store.figures().evicted >= 51);
    }
}

#[tokio::test]
async fn p14_a_body_of_unknown_length_is_brought_under_the_quota_after_its_commit() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for nth in 0..10 {
        let name = format!("n-{nth}");
        assert!(put(&store, &name, &body(&name, 64 * KIB)).await);
    }
    // Room is promised in large steps when the length is not known, so that the quota is met by what is stored already.
    let large = body("large", 900 * KIB);
    let temporary = store.begin(0).await.unwrap();
    std::io::Write::write_all(&mut temporary.file().as_ref(), &large).unwrap();
    // A fill that noted nothing of its growth: the worst case.
    store
        .commit(temporary, key("large"), sample(&large))
        .await
        .unwrap();
    assert!(store.totals().unwrap().bytes <= 1 << 20);
    drop(store);
}

#[tokio::test]
async fn p14_what_eviction_learned_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for name in ["used-1", "used-2"] {
        assert!(put(&store, name, &body(name, 64 * KIB)).await);
    }
    for nth in 0..12 {
        let name = format!("once-{nth}");
        assert!(put(&store, &name, &body(&name, 64 * KIB)).await);
    }
    for name in ["used-1", "used-2"] {
        assert!(hits(&store, name).await);
    }
    off(&store, Store::upkeep).await.unwrap();
    drop(store);
    let store = open(dir.path());
    for nth in 0..12 {
        let name = format!("late-{nth}");
        assert!(put(&store, &name, &body(&name, 64 * KIB)).await);
    }
    off(&store, Store::trim).await.unwrap();
    assert!(is_stored(&store, "used-1") && is_stored(&store, "used-2"));
    assert!(!is_stored(&store, "once-0"));
    assert!(store.totals().unwrap().bytes <= 1 << 20);
}

#[tokio::test]
async fn p23_pinned_content_is_never_evicted_counts_in_the_quota_and_stays_pinned_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let digest = Digest::of(&body("by-digest", 64 * KIB));
    for pin in [
        Pin::Key(key("by-key")),
        Pin::Prefix(key("group/")),
        Pin::Content(digest),
    ] {
        store.pin(pin).await.unwrap();
    }
    let pinned = ["by-key", "group/1", "group/2", "by-digest"];
    for name in pinned {
        assert!(put(&store, name, &body(name, 64 * KIB)).await);
    }
    for round in 0..2 {
        for nth in 0..40 {
            let name = format!("{round}-{nth}");
            assert!(put(&store, &name, &body(&name, 64 * KIB)).await);
        }
        off(&store, Store::trim).await.unwrap();
        for name in pinned {
            assert!(is_stored(&store, name), "{name} in round {round}");
        }
        assert!(store.totals().unwrap().bytes <= 1 << 20);
        off(&store, Store::upkeep).await.unwrap();
        drop(store);
        store = open(dir.path());
    }
    let (pins, total) = store.pins().await.unwrap();
    assert_eq!(pins.iter().map(|pin| pin.contents).collect::<Vec<_>>(), [1, 1, 2]);
    assert_eq!(total.bytes, 4 * 64 * 1024);
    assert!(store.unpin(Pin::Prefix(key("group/"))).await.unwrap().is_some());
    assert!(store.unpin(Pin::Prefix(key("group/"))).await.unwrap().is_none());
    assert_eq!(store.pinned_total().bytes, 2 * 64 * 1024);
}

#[tokio::test]
async fn p23_when_pins_fill_the_quota_the_refusal_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.pin(Pin::Prefix("GET http".into())).await.unwrap();
    for nth in 0..16 {
        let name = format!("n-{nth}");
        assert!(put(&store, &name, &body(&name, 64 * KIB)).await);
    }
    let refused = store.begin(64 << 10).await.unwrap_err();
    assert!(
        matches!(
            refused,
            NoRoom::Pinned {
                pinned: 1_048_576,
                ..
            }
        ),
        "{refused}"
    );
    assert!(store.check_room().is_err());
    store.unpin(Pin::Prefix("GET http".into())).await.unwrap();
    store.check_room().unwrap();
    assert!(put(&store, "again", &body("again", 64 * KIB)).await);
}

#[tokio::test]
async fn p23_purging_frees_the_bytes_unless_they_are_shared_or_being_read() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let shared = body("shared", 300 * KIB);
    assert!(put(&store, "one", &shared).await && put(&store, "two", &shared).await);
    assert_eq!(files(&store), 1, "equal content is stored once");
    let removed = store.remove(vec![key("one")]).await.unwrap();
    assert_eq!((removed.keys, removed.contents, removed.bytes), (1, 0, 0));
    assert!(hits(&store, "two").await);
    let found = store.lookup(&key("two")).await;
    let reading = store.content(found.content(0)).await.unwrap();
    let removed = store.remove(vec![key("two")]).await.unwrap();
    assert_eq!((removed.contents, removed.bytes, files(&store)), (0, 0, 1));
    let Content::File { file, .. } = &reading else {
        panic!("a large body is read from its file");
    };
    let mut first = [0; 6];
    std::os::unix::fs::FileExt::read_exact_at(file.as_ref(), &mut first, 0).unwrap();
    assert_eq!(&first, b"shared");
    off(&store, Store::upkeep).await.unwrap();
    assert_eq!(files(&store), 1, "still being read");
    drop(reading);
    off(&store, Store::upkeep).await.unwrap();
    assert_eq!((files(&store), store.totals().unwrap().bytes), (0, 0));
}

#[tokio::test]
async fn p13_a_name_that_goes_does_not_take_content_that_others_name() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let shared = body("shared", 300 * KIB);
    for name in ["one", "two", "three"] {
        assert!(put(&store, name, &shared).await);
    }
    store.remove(vec![key("one")]).await.unwrap();
    // The second now answers with something else.
    assert!(put(&store, "two", &body("other", 300 * KIB)).await);
    off(&store, Store::upkeep).await.unwrap();
    off(&store, |store| store.collect(|_, _| false)).await.unwrap();
    assert!(hits(&store, "three").await && hits(&store, "two").await);
    assert_eq!(files(&store), 2);
    let digest = Digest::of(&shared);
    let removed = off(&store, move |store| store.remove_content(&digest))
        .await
        .unwrap();
    assert_eq!((removed.keys, removed.contents), (1, 1));
    assert!(!is_stored(&store, "three") && is_stored(&store, "two"));
}

#[tokio::test]
async fn p25_garbage_goes_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    assert!(put(&store, "kept", &body("kept", 100)).await);
    assert!(put(&store, "gone", &body("gone", 200)).await);
    let temporary = store.begin(10).await.unwrap();
    let abandoned = store.0.layout.new_temp();
    durable::write(&abandoned, b"left", 0o600).unwrap();
    let collecting = |store: &Store| store.collect(|key, _| key.ends_with("/gone"));
    let collected = off(&store, collecting).await.unwrap();
    assert_eq!(
        (collected.negatives, collected.contents, collected.content_bytes),
        (1, 1, 200)
    );
    assert_eq!((collected.temporary, collected.temporary_bytes), (1, 4));
    assert!(!abandoned.exists() && is_stored(&store, "kept") && !is_stored(&store, "gone"));
    std::io::Write::write_all(&mut temporary.file().as_ref(), b"0123456789").unwrap();
    let response = sample(b"0123456789");
    store.commit(temporary, key("under-way"), response).await.unwrap();
    assert!(hits(&store, "under-way").await);
}

#[tokio::test]
async fn p25_the_index_is_compacted_and_what_it_holds_stays() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let many: Vec<String> = (0..3000).map(|nth| key(&format!("n-{nth}"))).collect();
    let changes = |keys: &[String]| {
        keys.iter()
            .map(|key| Change::Put {
                key: key.clone(),
                response: Box::new(sample(key.as_bytes())),
            })
            .collect()
    };
    store.0.index.submit(changes(&many)).await.unwrap().unwrap();
    let collected = off(&store, move |store| {
        store.remove_blocking(&many[10..])?;
        store.collect(|_, _| false)
    });
    let collected = collected.await.unwrap();
    assert!(collected.index_after < collected.index_before, "{collected:?}");
    assert!((0..10).all(|nth| is_stored(&store, &format!("n-{nth}"))));
    assert_eq!(store.totals().unwrap().responses, 10);
    drop(store);
    assert!(is_stored(&open(dir.path()), "n-3"));
}

#[tokio::test]
async fn p13_what_is_being_read_survives_eviction_purge_and_garbage_collection_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut readers = tokio::task::JoinSet::new();
    for worker in 0..4_usize {
        let store = store.clone();
        readers.spawn(async move {
            for round in 0..40 {
                let name = format!("{}", (worker + round) % 6);
                let whole = body(&name, 260 * KIB);
                put(&store, &name, &whole).await;
                let found = store.lookup(&key(&name)).await;
                if found.heads().is_empty() {
                    continue;
                }
                if let Some(Content::File { file, length, .. }) = store.content(found.content(0)).await {
                    let mut read = vec![0; usize::try_from(length).unwrap()];
                    tokio::task::yield_now().await;
                    std::os::unix::fs::FileExt::read_exact_at(file.as_ref(), &mut read, 0).unwrap();
                    assert!(read == whole, "{name} in round {round}");
                }
            }
        });
    }
    for round in 0..40 {
        store.remove(vec![key(&format!("{}", round % 6))]).await.unwrap();
        off(&store, |store| store.collect(|_, _| false)).await.unwrap();
    }
    while let Some(ended) = readers.join_next().await {
        ended.unwrap();
    }
    off(&store, Store::upkeep).await.unwrap();
    let found = off(&store, Store::verify).await.unwrap();
    assert!(found.damaged.is_empty() && found.unnamed.is_empty(), "{found:?}");
    assert!(store.totals().unwrap().bytes <= 1 << 20);
}

#[tokio::test]
async fn one_page_under_every_name_does_not_grow_the_index_without_bound() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let changes = (0..4200).map(|nth| Change::Put {
        key: key(&format!("n-{nth}")),
        response: Box::new(sample(b"not found")),
    });
    store.0.index.submit(changes.collect()).await.unwrap().unwrap();
    let totals = store.totals().unwrap();
    assert_eq!((totals.responses, totals.contents), (4096, 1));
    assert!(is_stored(&store, "n-4199"));
}

/// A store of schema 1, as the program of that schema wrote it.
fn schema_1(dir: &Path, schema: u64) {
    const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
    const RESPONSES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("responses");
    const CONTENT: TableDefinition<'_, [u8; 32], (u64, i64)> = TableDefinition::new("content");
    const REFERENCES: MultimapTableDefinition<'_, [u8; 32], &str> =
        MultimapTableDefinition::new("references");
    let database = Database::create(dir.join("index.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    for (name, last_use) in [("new", 1_700_000_900_i64), ("old", 1_700_000_100)] {
        let body = body(name, 100);
        let digest = Digest::of(&body);
        let row = format!(
            r#"[{{"status":200,"headers":[["etag","\"x\""]],"request_time":"2024-01-01T00:00:00Z","response_time":"2024-01-01T00:00:01Z","digest":"{digest}","length":100,"known_digest":false,"invalidated":false,"upstream":"pkg"}}]"#
        );
        let path = dir
            .join("content-v2/sha256")
            .join(&digest.hex()[..2])
            .join(&digest.hex()[2..4]);
        std::fs::create_dir_all(&path).unwrap();
        durable::write(&path.join(&digest.hex()[4..]), &body, 0o644).unwrap();
        let mut responses = transaction.open_table(RESPONSES).unwrap();
        responses.insert(key(name).as_str(), row.as_bytes()).unwrap();
        let mut content = transaction.open_table(CONTENT).unwrap();
        content.insert(digest.as_bytes(), (100, last_use)).unwrap();
        let mut references = transaction.open_multimap_table(REFERENCES).unwrap();
        references.insert(digest.as_bytes(), key(name).as_str()).unwrap();
    }
    let mut meta = transaction.open_table(META).unwrap();
    meta.insert("schema", schema).unwrap();
    meta.insert("bytes", 200).unwrap();
    drop(meta);
    transaction.commit().unwrap();
}

#[tokio::test]
async fn a_store_of_schema_1_is_carried_over_with_its_order_of_use() {
    let dir = tempfile::tempdir().unwrap();
    schema_1(dir.path(), 1);
    for _ in 0..2 {
        let store = open(dir.path());
        assert!(hits(&store, "old").await && hits(&store, "new").await);
        let totals = store.totals().unwrap();
        assert_eq!((totals.responses, totals.contents, totals.bytes), (2, 2, 200));
        drop(store);
    }
    let other = tempfile::tempdir().unwrap();
    schema_1(other.path(), 1);
    let store = open(other.path());
    let taken = store
        .0
        .index
        .ledger()
        .take(
            ledger::Excess {
                bytes: 1,
                contents: 0,
            },
            &HashSet::new(),
        )
        .unwrap();
    assert_eq!(taken, [(Digest::of(&body("old", 100)), 100)]);
}

#[test]
fn a_store_of_a_later_schema_is_refused_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    schema_1(dir.path(), 99);
    let refused = Store::open(&settings(dir.path()), Clock::system()).unwrap_err();
    assert!(matches!(refused, OpenError::Newer { found: 99, .. }), "{refused}");
    let database = Database::create(dir.path().join("index.redb")).unwrap();
    let tables = database.begin_read().unwrap().list_tables().unwrap().count();
    assert_eq!(tables, 3);
}

#[test]
fn a_folder_that_was_given_up_in_its_first_moments_is_ours_and_a_foreign_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let [left, foreign] = [".kato-5BgoqX", ".kato-notes"].map(|name| folder.path().join(name));
    durable::create_new(&foreign).unwrap();
    let refused = Store::open(&settings(folder.path()), Clock::system()).unwrap_err();
    assert!(
        matches!(&refused, OpenError::Foreign { found, .. } if found == ".kato-notes"),
        "{refused}"
    );
    std::fs::remove_file(&foreign).unwrap();
    durable::create_new(&left).unwrap();
    open(folder.path());
    assert!(!left.exists(), "what a killed process left");
}
