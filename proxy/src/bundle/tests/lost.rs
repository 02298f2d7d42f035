//! An exporter that has lost its folder of snapshots goes on with its series by what the site, or an old bundle, says.

use std::fs;

use jiff::Timestamp;

use super::{
    assert_holds,
    kit::{Lab, Site},
    opened, since,
};
use crate::{
    bundle::{BundleError, header::Kind, prepare::Order, receipt::Receipt},
    snapshot::{Record, Side},
};

fn lose(site: &Site) {
    fs::remove_dir_all(site.library.folder()).unwrap();
}

/// A receipt of `record`, as a file.
fn receipt(lab: &Lab, record: Record) -> String {
    let path = lab.folder.path().join("receipt.json");
    Receipt::new("site", record, Timestamp::UNIX_EPOCH)
        .write(&path, None)
        .unwrap();
    path.display().to_string()
}

#[test]
fn a_receipt_gives_the_series_and_a_number_that_the_site_has_not_seen() {
    let lab = Lab::new();
    let (here, there) = (lab.site("here"), lab.site("there"));
    here.fill(0..3);
    let first = lab.export(&here, &Order::default());
    let known = there.import(&opened(&lab, &first)).unwrap().active.unwrap();
    // Two more leave; the site has one of them, and the receipt tells of neither.
    here.fill(3..4);
    lab.export(&here, &since("1"));
    here.fill(4..5);
    let third = lab.export(&here, &since("2"));
    lose(&here);
    here.fill(5..6);
    let order = since(&receipt(&lab, known.clone()));
    let again = opened(&lab, &lab.export(&here, &order));
    assert_eq!(again.header.series_id, known.series_id);
    assert!(again.header.seq > 3, "{}", again.header.seq);
    assert_eq!(
        again.header.kind,
        Kind::Full,
        "what the site has is not known here"
    );
    there.import(&opened(&lab, &third)).unwrap();
    let imported = there.import(&again).unwrap();
    assert_eq!(imported.active.unwrap().seq, again.header.seq);
    assert_holds(&there, &here, 0..6);
    // From there on as ever.
    here.fill(6..7);
    let next = opened(&lab, &lab.export(&here, &since(&again.header.seq.to_string())));
    assert_eq!(
        (next.header.seq, next.header.kind),
        (again.header.seq + 1, Kind::Delta)
    );
    there.import(&next).unwrap();
    assert_holds(&there, &here, 0..7);
}

#[test]
fn an_old_bundle_gives_what_the_site_has_as_well() {
    let lab = Lab::new();
    let (here, there) = (lab.site("here"), lab.site("there"));
    here.fill(0..3);
    let first = lab.export(&here, &Order::default());
    there.import(&opened(&lab, &first)).unwrap();
    lose(&here);
    here.fill(3..4);
    let header = first.join("BUNDLE.json").display().to_string();
    let again = opened(&lab, &lab.export(&here, &since(&header)));
    assert_eq!(again.header.series_id, opened(&lab, &first).header.series_id);
    assert_eq!(again.header.kind, Kind::Delta);
    assert!(again.header.counts.blobs_here < again.header.counts.blobs_root);
    there.import(&again).unwrap();
    assert_holds(&there, &here, 0..4);
}

/// The same document after the second loss: what left after the first one may be at the site, and no number comes twice.
#[test]
fn the_same_old_bundle_gives_another_number_after_each_loss() {
    let lab = Lab::new();
    let (here, there) = (lab.site("here"), lab.site("there"));
    here.fill(0..3);
    let first = lab.export(&here, &Order::default());
    there.import(&opened(&lab, &first)).unwrap();
    let order = since(&first.join("BUNDLE.json").display().to_string());
    let mut numbers = vec![1];
    for loss in 3..6 {
        lose(&here);
        here.fill(loss..loss + 1);
        let again = opened(&lab, &lab.export(&here, &order));
        assert!(!numbers.contains(&again.header.seq), "{numbers:?}");
        numbers.push(again.header.seq);
        there.import(&again).unwrap();
        assert_holds(&there, &here, 0..loss + 1);
    }
}

/// The exporter began anew first, and the site refused that: what it goes on with is for the operator to say.
#[test]
fn a_series_that_began_anew_by_mistake_can_go_on_as_the_one_of_the_site() {
    let lab = Lab::new();
    let (here, there) = (lab.site("here"), lab.site("there"));
    here.fill(0..3);
    let first = lab.export(&here, &Order::default());
    let known = there.import(&opened(&lab, &first)).unwrap().active.unwrap();
    lose(&here);
    fs::remove_dir_all(&first).unwrap();
    let anew = lab.export(&here, &Order::default());
    let refused = there.import(&opened(&lab, &anew));
    assert!(matches!(refused, Err(BundleError::Replay(_))), "{refused:?}");
    let order = since(&receipt(&lab, known));
    let refused = lab.try_export(&here, &order).unwrap_err();
    let folder = here.library.exported("test");
    assert!(matches!(refused, BundleError::OtherSeries { .. }), "{refused:?}");
    assert!(
        refused.to_string().contains(&folder.display().to_string()),
        "{refused}"
    );
    fs::remove_dir_all(folder).unwrap();
    fs::remove_dir_all(anew).unwrap();
    here.fill(3..4);
    let again = opened(&lab, &lab.export(&here, &order));
    there.import(&again).unwrap();
    assert_holds(&there, &here, 0..4);
    let records = here.library.records(Side::Exported, "test").unwrap();
    assert_eq!(records.last().unwrap().seq, again.header.seq);
}

#[test]
fn a_number_alone_is_not_known_and_the_hint_says_what_is() {
    let lab = Lab::new();
    let here = lab.site("here");
    here.fill(0..3);
    lab.export(&here, &Order::default());
    lose(&here);
    let refused = lab.try_export(&here, &since("1")).unwrap_err();
    assert!(matches!(refused, BundleError::UnknownBase(_)), "{refused:?}");
    assert!(refused.to_string().contains("receipt"), "{refused}");
    // A number after which none comes is no place to go on from.
    let record = Record {
        series: "test".into(),
        series_id: "x".into(),
        seq: u64::MAX,
        root: kato_shared::Digest::of(b"x"),
        created: Timestamp::UNIX_EPOCH,
    };
    let refused = lab.try_export(&here, &since(&receipt(&lab, record)));
    assert!(matches!(refused, Err(BundleError::Leap { .. })), "{refused:?}");
}
