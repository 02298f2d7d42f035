//! What a site asks for comes in one bundle, whatever else the other side has come to hold.

use super::{
    super::{export::Written, header::Proof, plan::Plan, prepare::prepare, satisfy::Whole},
    kit::{Lab, url},
    *,
};
use crate::snapshot::{Record, Wanted, WantedUrl};

/// A request of a site that has `have` for `urls`.
fn request(lab: &Lab, name: &str, have: Option<Record>, urls: &[String]) -> Order {
    let mut wanted = Wanted::new(jiff::Timestamp::UNIX_EPOCH);
    wanted.have = have;
    wanted.urls.extend(urls.iter().map(|url| WantedUrl {
        url: url.clone(),
        accept: None,
        digest: None,
        count: 1,
    }));
    let path = lab.folder.path().join(name);
    kato_shared::durable::write_json(&path, &wanted, 0o644).unwrap();
    Order {
        satisfy: Some(path),
        ..Order::default()
    }
}

fn planned(lab: &Lab, site: &Site, order: &Order) -> Plan {
    let order = Order {
        series: "test".to_owned(),
        ..order.clone()
    };
    let parties = (&site.store, &site.library, lab.handle());
    prepare(
        parties,
        &order,
        lab.folder.path(),
        jiff::Timestamp::UNIX_EPOCH,
        None,
    )
    .unwrap()
}

/// What the snapshot that `site` serves has for `url`.
fn served(site: &Site, url: &str) -> Option<Digest> {
    let active = site.library.active().unwrap().unwrap();
    let snapshot = site.library.load(active.root).unwrap();
    let entry = snapshot.variants(&format!("GET {url}")).first()?;
    Some(entry.digest)
}

fn names(site: &Site, url: &str) -> bool {
    served(site, url).is_some()
}

#[test]
fn what_was_missed_is_served_after_one_trip_and_so_is_the_next() {
    let lab = Lab::new();
    let (here, there) = (lab.site("here"), lab.site("there"));
    here.fill(0..1);
    there
        .import(&lab.open(&lab.export(&here, &Order::default())))
        .unwrap();
    // What was asked for, and much else.
    here.fill(1..60);
    for (number, seq) in [(1, 2), (2, 3)] {
        let have = there.library.active().unwrap();
        let order = request(&lab, "request.json", have, &[url(number)]);
        let bundle = lab.open(&lab.export(&here, &order));
        assert_eq!(bundle.header.counts.blobs_here, 1, "{:?}", bundle.header.counts);
        let imported = there.import(&bundle).unwrap();
        assert_eq!(imported.wanted, None);
        assert_eq!(imported.active.map(|record| record.seq), Some(seq));
        for known in 0..=number {
            assert!(names(&there, &url(known)), "{known}");
            assert_eq!(there.body(&url(known)), here.body(&url(known)));
        }
        assert!(!names(&there, &url(40)));
    }
    // The next of all that is new goes on from there.
    let delta = lab.open(&lab.export(&here, &since("3")));
    assert_eq!(delta.header.counts.blobs_here, 57);
    assert_eq!(
        there.import(&delta).unwrap().active.map(|record| record.seq),
        Some(4)
    );
    assert_holds(&there, &here, 0..60);
}

/// The request was written before another bundle came: what that brought stays.
#[test]
fn a_site_does_not_go_back_when_its_request_is_older_than_what_it_took_in() {
    let lab = Lab::new();
    let (here, there) = (lab.site("here"), lab.site("there"));
    here.fill(0..5);
    there
        .import(&lab.open(&lab.export(&here, &Order::default())))
        .unwrap();
    let have = there.library.active().unwrap();
    here.fill(5..10);
    let delta = lab.export(&here, &since("1"));
    here.fill(10..20);
    let order = request(&lab, "request.json", have, &[url(15)]);
    let satisfy = lab.export(&here, &order);
    there.import(&lab.open(&delta)).unwrap();
    let imported = there.import(&lab.open(&satisfy)).unwrap();
    assert_eq!(
        (imported.wanted, imported.active.map(|record| record.seq)),
        (None, Some(3))
    );
    for number in (0..10).chain([15]) {
        assert!(names(&there, &url(number)), "{number}");
    }
    // Without the other bundle it is whole as well.
    let late = lab.site("late");
    late.import(&lab.open(&lab.folder.path().join("out/test-000001")))
        .unwrap();
    assert_eq!(late.import(&lab.open(&satisfy)).unwrap().wanted, None);
}

#[test]
fn a_site_of_which_nothing_is_known_gets_all_and_the_plan_says_so() {
    let lab = Lab::new();
    let here = lab.site("here");
    here.fill(0..10);
    lab.export(&here, &Order::default());
    let unknown = Record {
        series: "test".to_owned(),
        series_id: "1".to_owned(),
        seq: 9,
        root: Digest::of(b"unknown"),
        created: jiff::Timestamp::UNIX_EPOCH,
    };
    for have in [None, Some(unknown)] {
        let urls = [url(3), "https://files.example/nowhere".to_owned()];
        let order = request(&lab, "request.json", have, &urls);
        let plan = planned(&lab, &here, &order);
        assert_eq!((plan.whole, plan.blobs.len()), (Some(Whole::UnknownSite), 10));
        assert_eq!(plan.not_held, urls[1..]);
        let there = lab.site("there");
        let done = lab
            .exporting(&here, &order, (&lab.signer, Proof::default()))
            .unwrap();
        assert_eq!(there.import(&lab.open(&done.folder)).unwrap().wanted, None);
    }
}

/// What left since the site's snapshot is gone from the store: all that the store holds goes, so that the site can close it.
#[test]
fn content_that_is_gone_does_not_stand_in_the_way() {
    let lab = Lab::new();
    let (here, there) = (lab.site("here"), lab.site("there"));
    here.fill(0..5);
    there
        .import(&lab.open(&lab.export(&here, &Order::default())))
        .unwrap();
    let have = there.library.active().unwrap();
    here.put(&url(7), b"soon another", &[]);
    lab.export(&here, &since("1"));
    here.remove(&url(7));
    here.fill(8..12);
    let order = request(&lab, "request.json", have, &[url(9)]);
    assert_eq!(planned(&lab, &here, &order).whole, Some(Whole::ContentGone));
    let imported = there.import(&lab.open(&lab.export(&here, &order))).unwrap();
    assert_eq!(
        (imported.wanted, imported.active.map(|record| record.seq)),
        (None, Some(3))
    );
    assert!(names(&there, &url(9)) && !names(&there, &url(7)));
}

#[test]
fn a_file_of_a_suite_brings_its_suite_as_it_is_now() {
    let lab = Lab::new();
    let (here, there) = (lab.site("here"), lab.site("there"));
    let file = |name: &str| format!("http://deb.example/debian/dists/stable/{name}");
    here.put(&file("InRelease"), b"of the first day", &[]);
    here.fill(0..2);
    there
        .import(&lab.open(&lab.export(&here, &Order::default())))
        .unwrap();
    let have = there.library.active().unwrap();
    here.put(&file("InRelease"), b"of the second day", &[]);
    here.put(
        &file("main/binary-arm64/Packages"),
        b"of the second day, too",
        &[],
    );
    here.put(&url(0), b"changed as well", &[]);
    let order = request(&lab, "request.json", have, &[file("main/binary-arm64/Packages")]);
    assert_eq!(
        there
            .import(&lab.open(&lab.export(&here, &order)))
            .unwrap()
            .wanted,
        None
    );
    assert_eq!(
        served(&there, &file("InRelease")),
        Some(Digest::of(b"of the second day"))
    );
    let packages = served(&there, &file("main/binary-arm64/Packages"));
    assert_eq!(packages, Some(Digest::of(b"of the second day, too")));
    assert_ne!(
        served(&there, &url(0)),
        Some(Digest::of(b"changed as well")),
        "nobody asked for it"
    );
}

/// The first bundle arrives with a hole, so that the site has no snapshot; only the hole is sent.
#[test]
fn a_hole_in_the_first_bundle_is_filled_with_what_is_missing_alone() {
    let lab = Lab::new();
    let (here, there) = (lab.site("here"), lab.site("there"));
    here.fill(0..20);
    let first = lab.export(&here, &Order::default());
    let lost = Digest::of(&here.body(&url(13)));
    std::fs::remove_file(first.join("blobs/sha256").join(lost.hex())).unwrap();
    let wanted = there.import(&lab.open(&first)).unwrap().wanted.unwrap();
    let path = lab.folder.path().join("request.json");
    kato_shared::durable::write_json(&path, &wanted, 0o644).unwrap();
    here.fill(20..30);
    let order = Order {
        satisfy: Some(path),
        ..Order::default()
    };
    let done = lab
        .exporting(&here, &order, (&lab.signer, Proof::default()))
        .unwrap();
    let healing = lab.open(&done.folder);
    assert_eq!(
        (done.written, healing.header.counts.blobs_here),
        (Written::Now, 1)
    );
    assert_eq!(there.import(&healing).unwrap().wanted, None);
    assert_holds(&there, &here, 0..20);
}

#[test]
fn a_request_for_nothing_is_told_and_nothing_is_written() {
    let lab = Lab::new();
    let here = lab.site("here");
    here.fill(0..3);
    let order = request(&lab, "request.json", None, &[]);
    let refused = lab.try_export(&here, &order).unwrap_err();
    assert!(matches!(refused, BundleError::NothingAsked(_)), "{refused:?}");
    assert!(refused.to_string().contains("asks for nothing"), "{refused}");
    assert!(!lab.folder.path().join("out").exists());
    assert_eq!(here.library.records(Side::Exported, "test").unwrap(), []);
}

/// The exporter has lost its folder of snapshots: the request says which series goes on.
#[test]
fn a_request_gives_the_series_of_an_exporter_that_lost_it() {
    let lab = Lab::new();
    let (here, there) = (lab.site("here"), lab.site("there"));
    here.fill(0..3);
    let first = lab.export(&here, &Order::default());
    there.import(&lab.open(&first)).unwrap();
    std::fs::remove_dir_all(here.library.folder()).unwrap();
    here.fill(3..4);
    let have = there.library.active().unwrap();
    let order = request(&lab, "request.json", have, &[url(3)]);
    let bundle = lab.open(&lab.export(&here, &order));
    assert_eq!(there.import(&bundle).unwrap().wanted, None);
    assert!(names(&there, &url(3)) && names(&there, &url(0)));
}
