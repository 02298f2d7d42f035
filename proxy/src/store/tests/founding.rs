//! A store that is founded, and what a process left that was killed while it founded one.

use super::*;

/// An index as redb leaves it that was killed before its first flush: of the size of a new one, and with zeros at its beginning.
fn unfinished(path: &Path) {
    drop(Database::create(path).unwrap());
    let file = std::fs::File::options().write(true).open(path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[0; 9], 0).unwrap();
}

#[tokio::test]
async fn an_index_that_was_being_founded_is_founded_from_the_beginning() {
    for left in ["index.redb.new", "index.redb"] {
        let dir = tempfile::tempdir().unwrap();
        unfinished(&dir.path().join(left));
        let store = reopened(dir.path()).await;
        assert!(put(&store, "a", &body("a", 10)).await);
        drop(store);
        assert!(!dir.path().join("index.redb.new").exists(), "{left}");
        assert!(hits(&reopened(dir.path()).await, "a").await, "{left}");
    }
}

#[tokio::test]
async fn an_index_whose_beginning_is_lost_is_never_taken_for_a_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let store = reopened(dir.path()).await;
    assert!(put(&store, "a", &body("a", 10)).await);
    drop(store);
    let index = dir.path().join("index.redb");
    let whole = std::fs::read(&index).unwrap();
    let mut lost = whole.clone();
    lost[..512].fill(0);
    durable::write(&index, &lost, 0o644).unwrap();
    let refused = Store::open(&settings(dir.path()), Clock::system()).unwrap_err();
    assert!(
        matches!(&refused, OpenError::Foreign { found, .. } if found.contains("beginning is lost")),
        "{refused}"
    );
    assert!(std::fs::read(&index).unwrap() == lost, "it was changed");
    durable::write(&index, &whole, 0o644).unwrap();
    assert!(hits(&reopened(dir.path()).await, "a").await);
}

#[tokio::test]
async fn a_kill_between_a_damaged_index_and_the_next_one_leaves_a_store() {
    for founded in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let store = reopened(dir.path()).await;
        assert!(put(&store, "a", &body("a", 10)).await);
        let content = store.content_path(&Digest::of(&body("a", 10)));
        drop(store);
        let index = dir.path().join("index.redb");
        durable::rename(&index, &dir.path().join("index.redb.damaged")).unwrap();
        if founded {
            // By a process that was killed before it removed what has no name any more.
            drop(Index::open(&index, dir.path()).unwrap());
        }
        assert!(content.exists());
        let store = reopened(dir.path()).await;
        assert!(
            !content.exists(),
            "content without a name stayed, founded: {founded}"
        );
        assert!(put(&store, "a", &body("a", 10)).await);
        assert!(hits(&store, "a").await);
    }
}
