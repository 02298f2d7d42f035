//! Exports that are run again into the same folder: the same bundle is the result only when it would be the same.

use std::fs;

use super::{
    super::{
        export::{Exported, Written},
        header::{Proof, name},
        sign::{Signer, Trust, keygen},
    },
    kit::{Lab, url},
    *,
};
use crate::snapshot::Wanted;

/// A request for `numbers` of a site that has bundle 1.
fn request(lab: &Lab, site: &Site, numbers: std::ops::Range<usize>) -> Order {
    let mut wanted = Wanted::new(jiff::Timestamp::UNIX_EPOCH);
    wanted.have = site
        .library
        .records(Side::Exported, "test")
        .unwrap()
        .first()
        .cloned();
    wanted
        .urls
        .extend(numbers.clone().map(|number| crate::snapshot::WantedUrl {
            url: url(number),
            accept: None,
            digest: None,
            count: 1,
        }));
    let path = lab.folder.path().join(format!("request-{}.json", numbers.start));
    kato_shared::durable::write_json(&path, &wanted, 0o644).unwrap();
    Order {
        satisfy: Some(path),
        ..Order::default()
    }
}

fn again(lab: &Lab, site: &Site, order: &Order) -> Exported {
    lab.exporting(site, order, (&lab.signer, Proof::default()))
        .unwrap()
}

#[test]
fn an_export_without_news_is_the_bundle_that_lies_there() {
    for limit in [None, Some("102400".parse().unwrap())] {
        let lab = Lab::new();
        let here = lab.site("here");
        here.fill(0..30);
        let order = Order {
            limit,
            ..Order::default()
        };
        let first = again(&lab, &here, &order);
        let second = again(&lab, &here, &order);
        assert_eq!((first.written, second.written), (Written::Now, Written::Before));
        assert_eq!((first.folder, first.record), (second.folder, second.record));
    }
}

#[test]
fn other_requests_get_bundles_of_their_own() {
    let lab = Lab::new();
    let here = lab.site("here");
    here.fill(0..5);
    lab.export(&here, &Order::default());
    here.fill(5..12);
    for (numbers, seq) in [(5..6, 2), (7..8, 3)] {
        let wanted = here.body(&url(numbers.start));
        let done = again(&lab, &here, &request(&lab, &here, numbers));
        assert_eq!((done.written, done.record.seq), (Written::Now, seq));
        let digest = Digest::of(&wanted).hex();
        assert!(done.folder.join("blobs/sha256").join(digest).exists());
    }
}

#[test]
fn another_key_another_proof_and_other_volumes_make_the_next_bundle() {
    let lab = Lab::new();
    let here = lab.site("here");
    here.fill(0..30);
    let order = Order::default();
    assert_eq!(again(&lab, &here, &order).record.seq, 1);

    let (secret, public) = (
        lab.folder.path().join("other"),
        lab.folder.path().join("other.pub"),
    );
    keygen(&secret, &public, None).unwrap();
    let other = Signer::read(&secret, None).unwrap();
    let done = lab.exporting(&here, &order, (&other, Proof::default())).unwrap();
    assert_eq!(done.record.seq, 2);
    let trust = Trust::read(&[public.display().to_string()]).unwrap();
    assert!(Bundle::open(&done.folder, Some(&trust)).is_ok());

    let shown = Proof {
        ok: true,
        declared: vec!["Cargo.lock".to_owned()],
        waived: Vec::new(),
    };
    let done = lab.exporting(&here, &order, (&other, shown.clone())).unwrap();
    assert_eq!(done.record.seq, 3);
    assert_eq!(
        Bundle::open(&done.folder, Some(&trust)).unwrap().header.closure,
        shown
    );

    // As many volumes, and other ones.
    let mut volumes = Vec::new();
    for limit in ["102400", "103424"] {
        let order = Order {
            limit: Some(limit.parse().unwrap()),
            ..Order::default()
        };
        let done = again(&lab, &here, &order);
        volumes.push((done.written, lab.open(&done.folder).header.volumes));
    }
    assert_eq!(volumes[0].1.len(), volumes[1].1.len());
    assert_ne!(volumes[0].1, volumes[1].1);
    assert_eq!(volumes[1].0, Written::Now);
}

#[test]
fn a_bundle_with_a_hole_is_written_again_under_the_next_number() {
    for (what, replaced) in [
        ("blobs", false),
        ("blobs", true),
        ("README.txt", false),
        ("BUNDLE.json.minisig", true),
    ] {
        let lab = Lab::new();
        let here = lab.site("here");
        here.fill(0..5);
        let first = again(&lab, &here, &Order::default());
        let path = if what == "blobs" {
            let digest = Digest::of(&here.body(&url(3))).hex();
            first.folder.join("blobs/sha256").join(digest)
        } else {
            first.folder.join(what)
        };
        fs::remove_file(&path).unwrap();
        if replaced {
            kato_shared::durable::write(&path, b"short", 0o644).unwrap();
        }
        let second = again(&lab, &here, &Order::default());
        assert_eq!((second.written, second.record.seq), (Written::Now, 2), "{what}");
        let report = verify(&lab.open(&second.folder), &[], Depth::Full).unwrap();
        assert!(report.is_good(), "{:?}", report.findings);
    }
}

/// The process died between the name of the folder and the ledger, and the store went on.
#[test]
fn a_bundle_that_the_ledger_does_not_know_is_learned_and_the_next_one_follows() {
    let lab = Lab::new();
    let here = lab.site("here");
    here.fill(0..5);
    let first = again(&lab, &here, &Order::default());
    here.library.forget(Side::Exported, "test", 1).unwrap();
    let learned = again(&lab, &here, &Order::default());
    assert_eq!(
        (learned.written, &learned.record),
        (Written::Before, &first.record)
    );
    here.library.forget(Side::Exported, "test", 1).unwrap();
    here.fill(5..6);
    let next = again(&lab, &here, &Order::default());
    assert_eq!(
        (next.record.seq, &next.record.series_id),
        (2, &first.record.series_id)
    );
}

/// An interrupted run is gone on with only by one that carries the same: what lies in its volumes is not read again.
#[test]
fn an_interrupted_export_of_other_content_is_not_gone_on_with() {
    let lab = Lab::new();
    let here = lab.site("here");
    here.fill(0..5);
    lab.export(&here, &Order::default());
    here.fill(5..12);
    let order = |numbers| Order {
        limit: Some("102400".parse().unwrap()),
        ..request(&lab, &here, numbers)
    };
    let begun = again(&lab, &here, &order(5..6));
    // As it was before its folder had its name: volumes whole, and in the journal.
    let journal = serde_json::json!({
        "record": begun.record, "kind": "satisfy", "base": lab.open(&begun.folder).header.base, "limit": 102_400,
        "carried": Digest::of(b"something else"), "done": lab.open(&begun.folder).header.volumes,
    });
    let partial = lab
        .folder
        .path()
        .join("out")
        .join(format!("{}.partial", name("test", 2)));
    kato_shared::durable::rename(&begun.folder, &partial).unwrap();
    kato_shared::durable::write_json(&partial.join("EXPORT.json"), &journal, 0o644).unwrap();
    here.library.forget(Side::Exported, "test", 2).unwrap();
    let done = again(&lab, &here, &order(7..8));
    let report = verify(&lab.open(&done.folder), &[], Depth::Full).unwrap();
    assert!(report.is_good(), "{:?}", report.findings);
}
