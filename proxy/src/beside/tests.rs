//! The socket by itself; orders are tried with the real program, in the integration tests.

use std::{fs, os::unix::fs::PermissionsExt as _};

use kato_shared::{clock::Clock, settings::ByteSize};

use super::{Ask, Asked, socket};
use crate::{
    settings,
    store::{Store, sample},
};

#[tokio::test]
async fn a_long_folder_has_a_socket_for_its_owner_alone_and_an_old_one_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("x".repeat(120));
    fs::create_dir(&store).unwrap();
    let refused = Ask {
        store: &store,
        hears: &mut |_| {},
    }
    .address()
    .unwrap_err();
    assert!(matches!(refused, Asked::Nobody { .. }), "{refused}");
    assert_eq!(refused.code(), crate::exit::TRY_AGAIN, "it ends some time");
    for _start in 0..2 {
        let _listening = socket::listen(&store).unwrap();
        socket::connect(&store).unwrap();
        let mode = fs::metadata(socket::path(&store)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    assert!(socket::connect(&store).is_err(), "nobody listens any more");
}

#[tokio::test]
async fn a_view_has_all_that_is_stored_and_keeps_it_whatever_the_store_forgets() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| settings::Cache {
        dir: folder.path().join(name),
        min_free: ByteSize::new(0),
        ..settings::Cache::default()
    };
    let store = Store::open(&at("store"), Clock::system()).unwrap();
    for name in ["one", "two"] {
        let body = name.as_bytes();
        let key = format!("GET http://pkg.example/{name}");
        store
            .put_whole(key, sample(body), body.to_vec().into())
            .await
            .unwrap();
    }
    let view = at("view");
    let (linking, dir) = (store.clone(), view.dir.clone());
    let count = tokio::task::spawn_blocking(move || linking.link_into(&dir))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(count, 2);
    store
        .remove(vec!["GET http://pkg.example/one".to_owned()])
        .await
        .unwrap();
    assert!(!Store::is_open(&view.dir));
    let view = Store::open(&view, Clock::system()).unwrap();
    assert!(Store::is_open(view.dir()));
    let found = view.lookup("GET http://pkg.example/one").await;
    assert_eq!(
        fs::read(view.content_path(&found.content(0).digest)).unwrap(),
        b"one"
    );
}
