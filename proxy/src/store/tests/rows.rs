//! Small bodies, which are rows of the index.

use super::{names::put_small, *};

async fn served(store: &Store, content: &[u8]) -> Option<Content> {
    store.0.hot.forget_all();
    store.0.hot.release(&Digest::of(content));
    store
        .content(ContentRef {
            digest: Digest::of(content),
            length: content.len() as u64,
        })
        .await
}

async fn change(store: &Store, change: Change) {
    off(store, move |store| {
        store.0.index.submit_blocking(vec![change]).unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_small_body_has_no_file_and_is_found_after_a_restart_until_it_is_evicted() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let (least, most) = (b"x".to_vec(), body("most", 4096));
    put_small(&store, "empty", b"").await;
    put_small(&store, "least", &least).await;
    put_small(&store, "most", &most).await;
    drop(store);
    let store = reopened(dir.path()).await;
    assert!(store.0.layout.content_files().unwrap().is_empty());
    for content in [&b""[..], &least, &most] {
        let found = served(&store, content).await.unwrap();
        assert_eq!(found.length(), content.len() as u64);
    }
    let verified = off(&store, |store| store.verify().unwrap()).await;
    assert_eq!((verified.checked, verified.bytes), (3, 4097));
    assert!(verified.damaged.is_empty());
    let digest = Digest::of(&most);
    change(&store, Change::Evict { digest }).await;
    assert!(store.0.index.body(&digest).unwrap().is_none());
    assert!(store.0.index.body(&Digest::of(&least)).unwrap().is_some());
}

#[tokio::test]
async fn a_row_that_was_damaged_is_found_and_never_served() {
    let dir = tempfile::tempdir().unwrap();
    for is_verified in [true, false] {
        let store = open(dir.path());
        put_small(&store, "one", b"content").await;
        let digest = Digest::of(b"content");
        let body = Bytes::from_static(b"CONTENT");
        change(&store, Change::Hold { digest, body }).await;
        if is_verified {
            let verified = off(&store, |store| store.verify().unwrap()).await;
            assert_eq!(verified.damaged.len(), 1);
        }
        assert!(served(&store, b"content").await.is_none());
        assert!(!is_stored(&store, "one"));
        assert!(store.0.index.body(&digest).unwrap().is_none());
        // It comes back whole.
        put_small(&store, "one", b"content").await;
        assert!(served(&store, b"content").await.is_some());
    }
}

#[tokio::test]
async fn a_small_body_that_came_by_way_of_a_file_stays_one() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    assert!(put(&store, "file", b"content").await);
    assert_eq!(store.0.layout.content_files().unwrap().len(), 1);
    assert!(served(&store, b"content").await.is_some());
    // As a row, too; both go together.
    put_small(&store, "row", b"content").await;
    off(&store, |store| {
        store.remove_content(&Digest::of(b"content")).unwrap()
    })
    .await;
    assert!(store.0.layout.content_files().unwrap().is_empty());
    assert!(store.0.index.body(&Digest::of(b"content")).unwrap().is_none());
}
