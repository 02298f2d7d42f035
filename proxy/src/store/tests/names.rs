//! What the store knows without its index: which keys and contents there are, and which files need not be written.

use super::*;

/// Stores `body` under the name by way of memory, durably.
async fn put_small(store: &Store, name: &str, body: &[u8]) {
    let place = store.place(body.len() as u64).unwrap();
    store.put_small(&key(name), sample(body), body.to_vec().into(), place);
    off(store, Store::flush).await;
}

#[tokio::test]
async fn what_is_not_stored_is_known_without_the_index_and_what_is_is_found_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    put_small(&store, "small", b"small").await;
    assert!(put(&store, "large", &body("large", 300 * KIB)).await);
    drop(store);
    let store = reopened(dir.path()).await;
    let may_have = |name: &str| store.0.index.ledger().keys().may_have(&key(name));
    assert!(!may_have("never") && store.lookup(&key("never")).await.heads().is_empty());
    assert!(may_have("small") && may_have("large"));
    assert!(hits(&store, "small").await && hits(&store, "large").await);
    // Removed by name, and evicted by content.
    store.remove(vec![key("small")]).await.unwrap();
    for nth in 0..16 {
        let name = format!("n-{nth}");
        assert!(put(&store, &name, &body(&name, 100 * KIB)).await);
    }
    for name in ["small", "large", "n-0", "n-15"] {
        assert_eq!(may_have(name), is_stored(&store, name), "{name}");
    }
    assert!(!may_have("n-0") && hits(&store, "n-15").await);
}

#[tokio::test]
async fn known_content_that_is_not_stored_is_known_without_the_index() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let other = key("other");
    put_small(&store, "one", b"content").await;
    let found = store
        .lookup_content(&other, Digest::of(b"content"), true, |_, _| true)
        .await;
    assert_eq!(found.heads().len(), 1);
    assert!(is_stored(&store, "other"));
    let absent = Digest::of(b"absent");
    assert!(!store.0.index.ledger().may_have(&absent));
    assert!(
        store
            .lookup_content(&other, absent, true, |_, _| true)
            .await
            .heads()
            .is_empty()
    );
}

#[tokio::test]
async fn the_same_small_content_under_another_name_is_not_written_again_unless_it_is_damaged() {
    use std::os::unix::fs::MetadataExt;
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let path = store.0.layout.content(&Digest::of(b"content"));
    put_small(&store, "one", b"content").await;
    let inode = path.metadata().unwrap().ino();
    put_small(&store, "two", b"content").await;
    assert_eq!(path.metadata().unwrap().ino(), inode);
    assert!(is_stored(&store, "one") && is_stored(&store, "two"));
    // Of the same size, and shorter.
    for damaged in [&b"CONTENT"[..], b"con"] {
        let file = std::fs::OpenOptions::new()
            .write(true)
            .truncate(true)
            .open(&path)
            .unwrap();
        std::io::Write::write_all(&mut &file, damaged).unwrap();
        put_small(&store, "three", b"content").await;
        assert_eq!(std::fs::read(&path).unwrap(), b"content");
    }
}
