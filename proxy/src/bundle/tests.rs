//! Bundles between two stores on real folders: there and back, in volumes, damaged, late, hostile.

mod again;
mod asked;
mod damaged;
mod hostile;
mod kit;
mod lost;
mod volumes;

use kato_shared::Digest;

use super::{
    BundleError,
    header::Kind,
    import::{Imported, snapshot_of},
    medium::Bundle,
    prepare::Order,
    verify::{Depth, verify},
};
use crate::snapshot::Side;
use kit::{Lab, Site, url};

#[test]
fn what_one_store_holds_the_other_holds_after_the_bundle() {
    let lab = Lab::new();
    let (here, there) = (lab.site("here"), lab.site("there"));
    here.fill(0..60);
    let bundle = lab.export(&here, &Order::default());
    let report = verify(&lab.open(&bundle), &[], Depth::Full).unwrap();
    assert!(report.is_good(), "{:?}", report.findings);
    let imported = there.import(&lab.open(&bundle)).unwrap();
    assert!(imported.findings.is_empty() && imported.wanted.is_none());
    assert_eq!(imported.active.as_ref().map(|record| record.seq), Some(1));
    for number in 0..60 {
        assert_eq!(there.body(&url(number)), here.body(&url(number)), "{number}");
    }
    let again = there.import(&lab.open(&bundle)).unwrap();
    assert_eq!((again.stored, again.wanted), (0, None));
    assert_eq!(again.active, imported.active);
    // What the bundle says is what is served.
    let active = there.library.load(imported.active.unwrap().root).unwrap();
    assert_eq!(active, snapshot_of(&lab.open(&bundle), None).unwrap());
}

#[test]
fn nothing_new_is_a_small_bundle_and_the_site_takes_it() {
    let lab = Lab::new();
    let (here, there) = (lab.site("here"), lab.site("there"));
    here.fill(0..60);
    there
        .import(&lab.open(&lab.export(&here, &Order::default())))
        .unwrap();
    let delta = lab.export(&here, &since("1"));
    let bundle = lab.open(&delta);
    assert_eq!(
        (bundle.header.kind, bundle.header.counts.blobs_here),
        (Kind::Delta, 0)
    );
    assert!(kit::size(&delta) < 1 << 20, "{}", kit::size(&delta));
    let imported = there.import(&bundle).unwrap();
    assert_eq!(imported.active.map(|record| record.seq), Some(2));
    assert_eq!(imported.wanted, None);
}

/// What was asked of the origin again, and found unchanged, is no news.
#[test]
fn a_delta_after_validations_is_as_small_as_one_without() {
    let lab = Lab::new();
    let (here, there) = (lab.site("here"), lab.site("there"));
    here.fill(0..120);
    there
        .import(&lab.open(&lab.export(&here, &Order::default())))
        .unwrap();
    here.grow_older(0..51);
    let delta = lab.export(&here, &since("1"));
    let bundle = lab.open(&delta);
    assert_eq!(bundle.header.root, there.library.active().unwrap().unwrap().root);
    assert!(kit::size(&delta) < 16 << 10, "{}", kit::size(&delta));
    assert_eq!(
        there.import(&bundle).unwrap().active.map(|record| record.seq),
        Some(2)
    );
    // Beside something new, too.
    here.grow_older(60..111);
    here.fill(120..121);
    let delta = lab.export(&here, &since("2"));
    let known = there
        .library
        .load(there.library.active().unwrap().unwrap().root)
        .unwrap();
    let new = snapshot_of(&lab.open(&delta), Some(&there.library)).unwrap();
    let changed = new
        .entries()
        .iter()
        .filter(|entry| !known.entries().contains(entry));
    assert_eq!(changed.count(), 1);
}

#[test]
fn a_lost_bundle_is_healed_by_what_the_site_asks_for() {
    let lab = Lab::new();
    let (here, there) = (lab.site("here"), lab.site("there"));
    here.fill(0..30);
    there
        .import(&lab.open(&lab.export(&here, &Order::default())))
        .unwrap();
    here.fill(30..40);
    let _lost = lab.export(&here, &since("1"));
    here.fill(40..50);
    let next = lab.export(&here, &since("2"));
    let imported = there.import(&lab.open(&next)).unwrap();
    assert_eq!(imported.active.as_ref().map(|record| record.seq), Some(1));
    assert_eq!(there.body(&url(5)), here.body(&url(5)));
    let wanted = imported.wanted.unwrap();
    assert_eq!(wanted.have.as_ref().map(|record| record.seq), Some(1));
    let request = lab.folder.path().join("request.json");
    kato_shared::durable::write_json(&request, &wanted, 0o644).unwrap();
    let healing = lab.export(
        &here,
        &Order {
            satisfy: Some(request),
            ..Order::default()
        },
    );
    let bundle = lab.open(&healing);
    assert_eq!(bundle.header.kind, Kind::Satisfy);
    // What the site has already stays here.
    assert!(
        bundle.header.counts.blobs_here <= 20,
        "{:?}",
        bundle.header.counts
    );
    let healed = there.import(&bundle).unwrap();
    assert_eq!(healed.wanted, None);
    assert_eq!(healed.active.map(|record| record.seq), Some(4));
    for number in 0..50 {
        assert_eq!(there.body(&url(number)), here.body(&url(number)), "{number}");
    }
}

#[test]
fn bundles_may_come_in_the_wrong_order() {
    let lab = Lab::new();
    let (here, there) = (lab.site("here"), lab.site("there"));
    here.fill(0..10);
    let first = lab.export(&here, &Order::default());
    here.fill(10..20);
    let second = lab.export(&here, &since("1"));
    assert!(there.import(&lab.open(&second)).unwrap().wanted.is_some());
    assert_eq!(there.library.active().unwrap(), None);
    let imported = there.import(&lab.open(&first)).unwrap();
    assert_eq!(imported.active.map(|record| record.seq), Some(2));
    assert_eq!(there.body(&url(15)), here.body(&url(15)));
}

#[test]
fn old_bundles_are_refused_unless_the_operator_means_it_and_the_last_are_kept() {
    let lab = Lab::new();
    let (here, there) = (lab.site("here"), lab.site("there"));
    let mut bundles = Vec::new();
    for number in 0..5 {
        here.fill(number..number + 1);
        bundles.push(lab.export(&here, &Order::default()));
        there.import(&lab.open(&bundles[number])).unwrap();
    }
    let kept = there.library.records(Side::Imported, "test").unwrap();
    assert_eq!(
        kept.iter().map(|record| record.seq).collect::<Vec<_>>(),
        [3, 4, 5]
    );
    let old = there.import(&lab.open(&bundles[2]));
    assert!(matches!(old, Err(BundleError::Replay(_))), "{old:?}");
    let mut import = there.importing();
    import.allow_rollback = true;
    let rolled_back = import.run(&lab.open(&bundles[2])).unwrap();
    assert_eq!(rolled_back.active.map(|record| record.seq), Some(3));
}

#[test]
fn another_series_is_no_way_around_the_order_and_takes_no_place_unasked() {
    let lab = Lab::new();
    let (here, other, there) = (lab.site("here"), lab.site("other"), lab.site("there"));
    let of = |series: &str| Order {
        series: series.to_owned(),
        ..Order::default()
    };
    here.fill(0..2);
    let first = lab.export(&here, &of("d"));
    here.fill(2..4);
    let second = lab.export(&here, &of("d"));
    other.fill(10..12);
    let patches = lab.export(&other, &of("p"));
    for bundle in [&first, &second] {
        there.import(&lab.open(bundle)).unwrap();
    }
    let refused = there.import(&lab.open(&patches)).unwrap_err().to_string();
    assert!(refused.contains("would take the place of d 2"), "{refused}");
    let mut import = there.importing();
    import.other_series = true;
    let active = |imported: Imported| imported.active.map(|record| (record.series, record.seq));
    let replaced = import.run(&lab.open(&patches)).unwrap();
    assert_eq!(active(replaced), Some(("p".to_owned(), 1)));
    // What is served now says nothing about how old the other series is.
    let old = import.run(&lab.open(&first)).unwrap_err().to_string();
    assert!(old.contains("d 1 is old: 2 is here"), "{old}");
    let again = import.run(&lab.open(&second)).unwrap();
    assert_eq!(active(again), Some(("d".to_owned(), 2)));
}

#[test]
fn what_only_a_passed_over_snapshot_named_goes_with_it() {
    let lab = Lab::new();
    let (here, there) = (lab.site("here"), lab.site("there"));
    here.fill(0..3);
    let first = lab.export(&here, &Order::default());
    there.import(&lab.open(&first)).unwrap();
    here.put("http://pkg.example/gone", b"soon gone", &[]);
    here.put("http://pkg.example/torn", b"torn", &[]);
    let second = lab.export(&here, &Order::default());
    let torn = second.join("blobs/sha256").join(Digest::of(b"torn").hex());
    std::fs::remove_file(torn).unwrap();
    assert!(there.import(&lab.open(&second)).unwrap().wanted.is_some());
    let gone = there.store.content_path(&Digest::of(b"soon gone"));
    assert!(gone.exists(), "it waits for the rest");
    here.remove("http://pkg.example/gone");
    here.remove("http://pkg.example/torn");
    let third = lab.export(&here, &Order::default());
    let imported = there.import(&lab.open(&third)).unwrap();
    assert_eq!(imported.active.map(|record| record.seq), Some(3));
    assert!(!gone.exists(), "no snapshot names it");
    assert_eq!(there.body(&url(1)), here.body(&url(1)));
}

#[test]
fn too_little_room_is_known_before_anything_is_written() {
    let lab = Lab::new();
    let here = lab.site("here");
    here.fill(0..60);
    let there = lab.site_of("there", 100 << 10);
    let refused = there.import(&lab.open(&lab.export(&here, &Order::default())));
    assert!(matches!(refused, Err(BundleError::NoRoom { .. })), "{refused:?}");
    assert_eq!(there.library.records(Side::Pending, "test").unwrap(), []);
    assert_eq!(there.store.totals().unwrap().contents, 0);
}

#[test]
fn no_secret_crosses_in_any_byte_that_we_write() {
    let lab = Lab::new();
    let here = lab.site("here");
    here.fill(0..5);
    here.put("https://cdn.example/a?X-Amz-Signature=TOPSECRET", b"signed", &[]);
    here.put(
        "https://cdn.example/b",
        b"cookie",
        &[("set-cookie", "id=TOPSECRET")],
    );
    here.put(
        "https://cdn.example/c",
        b"redirect",
        &[("location", "https://x.example/?token=TOPSECRET")],
    );
    here.put(
        "https://cdn.example/d",
        b"odd",
        &[("x-request-auth", "Bearer TOPSECRET")],
    );
    let bundle = lab.open(&lab.export(&here, &Order::default()));
    let snapshot = snapshot_of(&bundle, None).unwrap();
    let shown = serde_json::to_string(snapshot.entries()).unwrap();
    assert!(shown.contains("https://cdn.example/b"));
    let mut authored = vec![shown];
    let payloads: Vec<String> = snapshot.contents().keys().map(Digest::hex).collect();
    for path in kit::files(&bundle.head) {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if !payloads.contains(&name) {
            authored.push(String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned());
        }
    }
    assert!(authored.len() > 8, "{}", authored.len());
    assert!(authored.iter().all(|text| !text.contains("TOPSECRET")));
    assert_eq!(bundle.header.left_out.values().sum::<u64>(), 2);
}

#[test]
fn damaged_content_is_not_carried() {
    let lab = Lab::new();
    let here = lab.site("here");
    here.fill(0..10);
    let digest = Digest::of(&here.body(&url(3)));
    let path = here.store.content_path(&digest);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[0] ^= 1;
    kato_shared::durable::write(&path, &bytes, 0o644).unwrap();
    let refused = lab.try_export(&here, &Order::default());
    assert!(matches!(refused, Err(BundleError::Content { .. })), "{refused:?}");
}

fn since(what: &str) -> Order {
    Order {
        since: Some(what.to_owned()),
        ..Order::default()
    }
}

/// A site is no more than what its bundle says.
fn assert_holds(site: &Site, like: &Site, numbers: std::ops::Range<usize>) {
    for number in numbers {
        assert_eq!(site.body(&url(number)), like.body(&url(number)), "{number}");
    }
}

fn opened(lab: &Lab, path: &std::path::Path) -> Bundle {
    lab.open(path)
}
