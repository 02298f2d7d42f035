use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::store::sample;

fn entry(key: &str, content: &str) -> Entry {
    Entry::new(
        &format!("GET https://files.example/{key}"),
        &sample(content.as_bytes()),
        &Parameters::default(),
    )
    .unwrap()
}

fn many(count: usize) -> Vec<Entry> {
    (0..count)
        .map(|number| entry(&format!("pool/{number:06}"), &number.to_string()))
        .collect()
}

fn blobs(encoded: &Encoded) -> HashMap<Digest, Vec<u8>> {
    encoded
        .chunks
        .iter()
        .cloned()
        .chain([(encoded.root, encoded.root_bytes.clone())])
        .collect()
}

#[test]
fn a_snapshot_reads_back_and_finds_its_keys() {
    let snapshot = Snapshot::new(many(5000));
    let encoded = snapshot.encode().unwrap();
    assert!(encoded.chunks.len() > 3, "{}", encoded.chunks.len());
    let blobs = blobs(&encoded);
    let read = Snapshot::decode(encoded.root, |digest| blobs.get(digest).cloned()).unwrap();
    assert_eq!(read, snapshot);
    assert_eq!(read.variants("GET https://files.example/pool/004999").len(), 1);
    assert!(read.variants("GET https://files.example/pool/").is_empty());
    assert_eq!(read.under("GET https://files.example/pool/0049").len(), 100);
    assert_eq!(read.contents().len(), 5000);
}

#[test]
fn a_changed_entry_changes_its_chunk_and_the_root_alone() {
    let before = Snapshot::new(many(5000)).encode().unwrap();
    let mut entries = many(5000);
    entries[2500] = entry("pool/002500", "changed");
    entries.push(entry("pool/002500b", "new"));
    let after = Snapshot::new(entries).encode().unwrap();
    let known: Vec<_> = before.chunks.iter().map(|(digest, _)| *digest).collect();
    let new = after
        .chunks
        .iter()
        .filter(|(digest, _)| !known.contains(digest))
        .count();
    assert!((1..=2).contains(&new), "{new}");
    assert_ne!(before.root, after.root);
}

#[test]
fn what_was_merely_validated_is_nothing_new_and_keeps_its_age() {
    let at = |second: i64| jiff::Timestamp::from_second(second).unwrap();
    let dated = |second: i64, more: &[(&str, &str)]| {
        let mut entry = entry("a", "content");
        entry.time = at(second);
        entry.headers = vec![
            ("date".to_owned(), format!("second {second}")),
            ("etag".to_owned(), "\"1\"".to_owned()),
            ("expires".to_owned(), format!("second {}", second + 9)),
        ];
        entry.headers.extend(
            more.iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
        );
        entry
    };
    let before = Snapshot::new(vec![dated(10, &[])]);
    let settled = |entry: Entry| Snapshot::new(vec![entry]).settled_on(&before);
    assert_eq!(settled(dated(20, &[])), before);
    let mut other_order = dated(20, &[("age", "3")]);
    other_order.headers.reverse();
    assert_eq!(settled(other_order), before);
    // An older one is never made to look newer, and a change is a change.
    let mut failed = dated(20, &[]);
    failed.status = 404;
    let mut content = dated(20, &[]);
    content.digest = Digest::of(b"other");
    let mut validator = dated(20, &[]);
    validator.headers[1].1 = "\"2\"".to_owned();
    for entry in [
        dated(5, &[]),
        dated(20, &[("link", "</b>")]),
        failed,
        content,
        validator,
    ] {
        assert_eq!(settled(entry.clone()).entries(), [entry]);
    }
}

#[test]
fn variants_stand_together_and_the_later_of_equals_stays() {
    let mut gzip = entry("a", "gzip");
    gzip.vary.insert("accept-encoding".into(), Some("gzip".into()));
    let snapshot = Snapshot::new(vec![
        entry("a", "old"),
        gzip.clone(),
        entry("a", "new"),
        entry("b", "b"),
    ]);
    let variants = snapshot.variants("GET https://files.example/a");
    assert_eq!(variants, [entry("a", "new"), gzip]);
}

#[test]
fn an_entry_goes_back_to_the_response_without_what_must_not_cross() {
    let mut response = sample(b"content");
    let add = |response: &mut crate::store::StoredResponse, name: &'static str, value: &'static str| {
        response
            .head
            .headers
            .append(name, http::HeaderValue::from_static(value));
    };
    add(&mut response, "set-cookie", "session=secret");
    add(&mut response, "x-vendor-token", "secret");
    add(&mut response, "etag", "\"1\"");
    add(&mut response, "link", "</next?token=secret>; rel=next");
    let entry = Entry::new("GET https://files.example/a", &response, &Parameters::default()).unwrap();
    let text = serde_json::to_string(&entry).unwrap();
    assert!(!text.contains("secret"), "{text}");
    let back = entry.response();
    assert_eq!(back.head.headers["etag"], "\"1\"");
    assert_eq!(back.head.headers.get_all("link").iter().count(), 2);
    assert_eq!(back.content, response.content);
    assert_eq!(
        Entry::new("GET https://files.example/a", &back, &Parameters::default()).unwrap(),
        entry
    );
}

#[test]
fn what_carries_a_secret_stays_here_and_says_why() {
    let response = sample(b"content");
    let reason = |key: &str, response: &crate::store::StoredResponse| {
        Entry::new(key, response, &Parameters::default())
            .unwrap_err()
            .reason
    };
    let signed = "GET https://cdn.example/a?X-Amz-Signature=abc";
    assert_eq!(reason(signed, &response), LeftOut::SignedUrl);
    let paged = "GET https://cdn.example/a?page=2";
    assert_eq!(reason(paged, &response), LeftOut::UnknownParameter);
    assert_eq!(reason("GET bundle://sha256/00", &response), LeftOut::Internal);
    let mut redirect = response.clone();
    let place = http::HeaderValue::from_static("https://cdn.example/a?sig=abc");
    redirect.head.headers.insert("location", place);
    assert_eq!(reason("GET https://a.example/", &redirect), LeftOut::SignedUrl);
    let mut personal = response.clone();
    let pair = ("authorization".to_owned(), Some("sha256:…".to_owned()));
    personal.head.selecting = crate::policy::Selecting::from_pairs([pair]);
    assert_eq!(reason("GET https://a.example/", &personal), LeftOut::Credentials);
    let mut invalid = response;
    invalid.head.invalidated = true;
    assert_eq!(reason("GET https://a.example/", &invalid), LeftOut::Invalidated);
}

#[test]
fn a_chunk_that_unpacks_to_more_than_it_says_is_refused() {
    let bomb = zstd::bulk::compress(&vec![b'\n'; 32 << 20], 1).unwrap();
    let chunk = ChunkRef {
        first: "GET https://a.example/".into(),
        digest: Digest::of(&bomb),
        size: bomb.len() as u64,
        unpacked: 1000,
        entries: 1,
    };
    assert!(matches!(
        chunk.decode(&bomb),
        Err(SnapshotError::TooLarge {
            found: 1001,
            limit: 1000,
            ..
        })
    ));
}

#[test]
fn damage_and_holes_are_named() {
    let encoded = Snapshot::new(many(5000)).encode().unwrap();
    let hole = encoded.chunks[1].0;
    let mut blobs = blobs(&encoded);
    let mut damaged = blobs[&hole].clone();
    damaged[10] ^= 1;
    let missing = Snapshot::decode(encoded.root, |digest| {
        (*digest != hole).then(|| blobs[digest].clone())
    });
    assert!(matches!(missing, Err(SnapshotError::Missing { digest, .. }) if digest == hole));
    blobs.insert(hole, damaged);
    let other = Snapshot::decode(encoded.root, |digest| blobs.get(digest).cloned());
    assert!(matches!(other, Err(SnapshotError::Digest { expected, .. }) if expected == hole));
}

#[test]
fn the_library_keeps_snapshots_records_and_what_is_active() {
    let folder = tempfile::tempdir().unwrap();
    let library = Library::new(folder.path());
    assert_eq!(library.active().unwrap(), None);
    let snapshot = Snapshot::new(many(1000));
    let encoded = snapshot.encode().unwrap();
    library.keep(&encoded).unwrap();
    let record = Record {
        series: "prod".into(),
        series_id: "0".into(),
        seq: 7,
        root: encoded.root,
        created: jiff::Timestamp::UNIX_EPOCH,
    };
    library.note(Side::Imported, &record).unwrap();
    library.activate(&record).unwrap();
    assert_eq!(library.active().unwrap(), Some(record.clone()));
    assert_eq!(library.records(Side::Imported, "prod").unwrap(), [record]);
    assert_eq!(library.records(Side::Exported, "prod").unwrap(), []);
    assert_eq!(library.sweep().unwrap(), 0);
    assert_eq!(library.load(encoded.root).unwrap(), snapshot);
    library.forget(Side::Imported, "prod", 7).unwrap();
    assert_eq!(library.sweep().unwrap(), encoded.chunks.len() as u64 + 1);
    assert!(library.load(encoded.root).is_err());
}

#[test]
fn a_request_file_reads_back_and_another_format_is_refused() {
    let mut wanted = Wanted::new(jiff::Timestamp::UNIX_EPOCH);
    wanted.digests.push(Digest::of(b"a"));
    let text = serde_json::to_string(&wanted).unwrap();
    assert_eq!(Wanted::read(text.as_bytes()).unwrap(), wanted);
    let other = text.replace("request/1", "request/2");
    assert!(matches!(
        Wanted::read(other.as_bytes()),
        Err(WantedError::Format(_))
    ));
}

#[tokio::test]
async fn what_a_store_holds_becomes_a_snapshot() {
    let folder = tempfile::tempdir().unwrap();
    let settings = crate::settings::Cache {
        dir: folder.path().to_owned(),
        ..crate::settings::Cache::default()
    };
    let store = crate::store::Store::open(&settings, kato_shared::clock::Clock::system()).unwrap();
    let body = bytes::Bytes::from_static(b"content");
    for url in [
        "https://a.example/1",
        "https://a.example/2?sig=x",
        "https://a.example/2?page=2",
        "https://b.example/1",
    ] {
        store
            .put_whole(format!("GET {url}"), sample(&body), body.clone())
            .await
            .unwrap();
    }
    let all = collect(&store, &[], &Parameters::default()).await.unwrap();
    assert_eq!(all.snapshot.entries().len(), 2);
    assert_eq!(all.left_out[&LeftOut::SignedUrl], 1);
    assert_eq!(all.left_out[&LeftOut::UnknownParameter], 1);
    let upstream = sample(&body).upstream;
    assert_eq!(
        all.parameters,
        BTreeMap::from([((upstream, "page".to_owned()), 1)])
    );
    let some = collect(&store, &["https://b.example/".into()], &Parameters::default())
        .await
        .unwrap();
    assert_eq!(some.snapshot.entries()[0].url(), "https://b.example/1");
}

proptest! {
    #[test]
    fn chunks_that_are_no_chunks_are_errors(bytes: Vec<u8>, unpacked in 0_u64..10_000) {
        let chunk = ChunkRef {
            first: String::new(),
            digest: Digest::of(&bytes),
            size: bytes.len() as u64,
            unpacked,
            entries: 1,
        };
        prop_assert!(chunk.decode(&bytes).is_err());
        prop_assert!(Root::decode(Digest::of(&bytes), &bytes).is_err());
    }
}
