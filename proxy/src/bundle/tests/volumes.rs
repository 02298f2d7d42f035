//! Volumes that come in any order, or not at all, or damaged.

use std::fs;

use super::{
    super::Fault,
    kit::{Lab, url},
    *,
};

/// Volumes of 100 KiB, so that the large files are cut.
pub(super) fn in_volumes() -> Order {
    Order {
        limit: Some("102400".parse().unwrap()),
        ..Order::default()
    }
}

#[test]
fn volumes_stand_alone_are_no_larger_than_they_may_be_and_come_in_any_order() {
    let lab = Lab::new();
    let (here, there) = (lab.site("here"), lab.site("there"));
    here.fill(0..40);
    let folder = lab.export(&here, &in_volumes());
    let bundle = opened(&lab, &folder);
    let volumes = bundle.header.volumes.clone();
    assert!(volumes.len() > 5, "{}", volumes.len());
    let aside = lab.folder.path().join("aside");
    fs::create_dir(&aside).unwrap();
    for volume in &volumes {
        let path = folder.join(&volume.file);
        assert_eq!(fs::metadata(&path).unwrap().len(), volume.size);
        assert!(volume.size <= 102_400);
        kato_shared::durable::rename(&path, &aside.join(&volume.file)).unwrap();
    }
    // One after the other, from the last to the first, as if each were on a stick of its own.
    for (count, volume) in volumes.iter().rev().enumerate() {
        kato_shared::durable::rename(&aside.join(&volume.file), &folder.join(&volume.file)).unwrap();
        let imported = there.import(&bundle).unwrap();
        assert_eq!(imported.wanted.is_none(), count + 1 == volumes.len());
        kato_shared::durable::rename(&folder.join(&volume.file), &aside.join(&volume.file)).unwrap();
    }
    assert_holds(&there, &here, 0..40);
    assert!(
        fs::read_dir(there.library.folder().join("parts"))
            .unwrap()
            .next()
            .is_none()
    );
}

#[test]
fn a_volume_that_is_dropped_costs_what_is_in_it_and_is_named() {
    let lab = Lab::new();
    let (here, there) = (lab.site("here"), lab.site("there"));
    here.fill(0..40);
    let folder = lab.export(&here, &in_volumes());
    let bundle = opened(&lab, &folder);
    let dropped = bundle.header.volumes[1].file.clone();
    let aside = lab.folder.path().join("aside.tar");
    kato_shared::durable::rename(&folder.join(&dropped), &aside).unwrap();
    let imported = there.import(&bundle).unwrap();
    assert_eq!(imported.findings[0].what, dropped);
    assert_eq!(imported.findings[0].fault, Fault::Missing);
    assert!(imported.active.is_none());
    let wanted = imported.wanted.unwrap();
    assert!(
        !wanted.urls.is_empty() && wanted.urls.len() < 40,
        "{}",
        wanted.urls.len()
    );
    // Whoever only verifies is told as much.
    for depth in [Depth::Quick, Depth::Full] {
        let report = verify(&bundle, &[], depth).unwrap();
        let found = &report.findings[0];
        assert_eq!(
            (found.what.as_str(), found.fault),
            (dropped.as_str(), Fault::Missing)
        );
        let members = bundle.table.iter();
        let lost: std::collections::BTreeSet<Digest> = members
            .filter(|(_, member)| member.volume == 2)
            .map(|(name, _)| name.digest())
            .collect();
        assert_eq!(found.urls.len(), lost.len().min(10), "{:?}", found.urls);
        let said = report.evidence.join("\n");
        let expected = format!("names 40 contents, {} of them are not", lost.len());
        assert!(said.contains(&expected), "{said}");
    }
    kato_shared::durable::rename(&aside, &folder.join(&dropped)).unwrap();
    let said = verify(&bundle, &[], Depth::Full).unwrap().evidence.join("\n");
    assert!(said.contains("names 40 contents, 0 of them are not"), "{said}");
    assert_eq!(there.import(&bundle).unwrap().wanted, None);
    assert_holds(&there, &here, 0..40);
}

#[test]
fn a_flipped_byte_is_found_and_located_wherever_it_is_and_the_rest_comes_in() {
    let lab = Lab::new();
    let here = lab.site("here");
    here.fill(0..40);
    let folder = lab.export(&here, &in_volumes());
    let bundle = opened(&lab, &folder);
    for volume in &bundle.header.volumes {
        let path = folder.join(&volume.file);
        let good = fs::read(&path).unwrap();
        // In the first header, in the first payload, in what ends the volume.
        for at in [10, 600, good.len() - 100] {
            let mut bytes = good.clone();
            bytes[at] ^= 1;
            kato_shared::durable::write(&path, &bytes, 0o644).unwrap();
            let report = verify(&bundle, &[], Depth::Full).unwrap();
            assert!(!report.is_good(), "{} at {at}", volume.file);
            assert!(
                report
                    .findings
                    .iter()
                    .all(|found| found.volume.as_ref() == Some(&volume.file))
            );
        }
        kato_shared::durable::write(&path, &good, 0o644).unwrap();
    }
    assert!(verify(&bundle, &[], Depth::Full).unwrap().is_good());
    let path = folder.join(&bundle.header.volumes[0].file);
    let mut bytes = fs::read(&path).unwrap();
    bytes[10] ^= 1;
    kato_shared::durable::write(&path, &bytes, 0o644).unwrap();
    let there = lab.site("there");
    let imported = there.import(&bundle).unwrap();
    assert!(imported.findings.iter().any(|found| found.fault == Fault::Wrong));
    let wanted = imported.wanted.unwrap();
    assert!(wanted.urls.len() < 10, "{}", wanted.urls.len());
    let lost: Vec<_> = wanted.urls.iter().map(|wanted| wanted.url.clone()).collect();
    for number in (0..40).filter(|number| !lost.contains(&url(*number))) {
        let digest = Digest::of(&here.body(&url(number)));
        assert!(there.store.content_path(&digest).exists(), "{number}");
    }
}

#[test]
fn volumes_unpack_into_the_folder_form() {
    let lab = Lab::new();
    let here = lab.site("here");
    here.fill(0..40);
    let folder = lab.export(&here, &in_volumes());
    let bundle = opened(&lab, &folder);
    for (name, member) in &bundle.table {
        assert_eq!(name.path(), member.path);
        assert_eq!(
            member.volume == 0,
            member.role != crate::bundle::header::Role::Payload
        );
    }
    let carried: u64 = bundle
        .table
        .values()
        .filter(|member| member.volume > 0)
        .map(|member| member.size)
        .sum();
    assert_eq!(carried, bundle.header.bytes.here);
}
