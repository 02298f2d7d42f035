//! Bundles that somebody made to do harm: each is refused, and says why.

use std::{fs, os::unix::fs::symlink, path::Path};

use kato_shared::durable;
use serde_json::{Value, json};

use super::{kit::Lab, *};
use crate::bundle::{
    header::Role,
    sign::{Signer, Trust, keygen},
};

/// A small bundle, and the site that is to take it.
fn bundle(lab: &Lab, order: &Order) -> std::path::PathBuf {
    let here = lab.site("here");
    here.fill(0..12);
    lab.export(&here, order)
}

/// What opening the bundle says.
fn refusal(lab: &Lab, folder: &Path) -> String {
    let error = Bundle::open(folder, Some(&lab.trust)).unwrap_err();
    kato_shared::chain::Chain(&error).to_string()
}

/// Changes `MEMBERS.jsonl` and `BUNDLE.json` and signs them with the right key: what a thief of the key could do.
fn reseal(lab: &Lab, head: &Path, change: impl FnOnce(&mut Value, &mut Vec<Value>)) {
    let read = |name: &str| fs::read_to_string(head.join(name)).unwrap();
    let mut header: Value = serde_json::from_str(&read("BUNDLE.json")).unwrap();
    let mut members: Vec<Value> = read("MEMBERS.jsonl")
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    change(&mut header, &mut members);
    let lines: Vec<String> = members.iter().map(|member| format!("{member}\n")).collect();
    let text = lines.concat();
    header["members"] = json!(Digest::of(text.as_bytes()));
    let bytes = serde_json::to_vec(&header).unwrap();
    let signature = lab.signer.sign(&bytes, "resealed").unwrap();
    durable::write(&head.join("MEMBERS.jsonl"), text.as_bytes(), 0o644).unwrap();
    durable::write(&head.join("BUNDLE.json"), &bytes, 0o644).unwrap();
    durable::write(&head.join("BUNDLE.json.minisig"), signature.as_bytes(), 0o644).unwrap();
}

#[test]
fn unsigned_truncated_and_foreign_signatures_are_refused() {
    let lab = Lab::new();
    let folder = bundle(&lab, &Order::default());
    let signature = folder.join("BUNDLE.json.minisig");
    let good = fs::read(&signature).unwrap();
    for length in [0, 30, good.len() / 2, good.len() - 20] {
        durable::write(&signature, &good[..length], 0o644).unwrap();
        assert!(refusal(&lab, &folder).contains("is damaged"), "{length}");
    }
    durable::remove(&signature).unwrap();
    assert!(refusal(&lab, &folder).contains("not signed"));
    let (secret, public) = (
        lab.folder.path().join("other"),
        lab.folder.path().join("other.pub"),
    );
    keygen(&secret, &public, Some("password".into())).unwrap();
    assert!(Signer::read(&secret, Some("wrong".into())).is_err());
    let other = Signer::read(&secret, Some("password".into())).unwrap();
    let text = fs::read(folder.join("BUNDLE.json")).unwrap();
    let foreign = other.sign(&text, "foreign").unwrap();
    durable::write(&signature, foreign.as_bytes(), 0o644).unwrap();
    assert!(refusal(&lab, &folder).contains("is signed by key"));
    assert!(
        Bundle::open(
            &folder,
            Some(&Trust::read(&[public.display().to_string()]).unwrap())
        )
        .is_ok()
    );
    // A signature of something else by the right key.
    let mismatch = lab.signer.sign(b"something else", "x").unwrap();
    durable::write(&signature, mismatch.as_bytes(), 0o644).unwrap();
    assert!(refusal(&lab, &folder).contains("is not that of BUNDLE.json"));
}

#[test]
fn a_signature_that_is_no_small_file_is_refused_at_once() {
    let lab = Lab::new();
    let folder = bundle(&lab, &Order::default());
    let signature = folder.join("BUNDLE.json.minisig");
    durable::remove(&signature).unwrap();
    symlink("/dev/zero", &signature).unwrap();
    let said = refusal(&lab, &folder);
    assert!(said.contains("symbolic link"), "{said}");
    durable::remove(&signature).unwrap();
    let fifo = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR);
    rustix::fs::mknodat(rustix::fs::CWD, &signature, fifo.0, fifo.1, 0).unwrap();
    let said = refusal(&lab, &folder);
    assert!(said.contains("no regular file"), "{said}");
    durable::remove(&signature).unwrap();
    let file = durable::create_new(&signature).unwrap();
    file.set_len(8 << 40).unwrap();
    let said = refusal(&lab, &folder);
    assert!(said.contains("more than 4096 bytes"), "{said}");
}

#[test]
fn a_table_that_was_exchanged_is_refused_by_name_and_a_larger_one_before_it_is_read() {
    let lab = Lab::new();
    let folder = bundle(&lab, &Order::default());
    let table = folder.join("MEMBERS.jsonl");
    let good = fs::read(&table).unwrap();
    let mut swapped = good.clone();
    swapped[3] ^= 1;
    durable::write(&table, &swapped, 0o644).unwrap();
    let said = refusal(&lab, &folder);
    assert!(
        said.contains("MEMBERS.jsonl") && said.contains("the signed one is"),
        "{said}"
    );
    durable::write(&table, &good, 0o644).unwrap();
    let file = fs::File::options().write(true).open(&table).unwrap();
    file.set_len(8 << 40).unwrap();
    let refused = Bundle::open(&folder, Some(&lab.trust));
    assert!(
        matches!(refused, Err(BundleError::TooLarge { .. })),
        "{refused:?}"
    );
    durable::write(&table, &good, 0o644).unwrap();
    assert!(Bundle::open(&folder, Some(&lab.trust)).is_ok());
}

#[test]
fn tables_that_no_import_needs_cost_none_and_verify_names_them() {
    for name in ["SHA256SUMS", "index.json", "README.txt", "oci-layout"] {
        let lab = Lab::new();
        let folder = bundle(&lab, &Order::default());
        let mut swapped = fs::read(folder.join(name)).unwrap();
        swapped[3] ^= 1;
        for is_huge in [false, true] {
            durable::write(&folder.join(name), &swapped, 0o644).unwrap();
            if is_huge {
                let file = fs::File::options().write(true).open(folder.join(name)).unwrap();
                file.set_len(8 << 40).unwrap();
            }
            let bundle = lab.open(&folder);
            let report = verify(&bundle, &[], Depth::Full).unwrap();
            let said: Vec<&str> = report.findings.iter().map(|found| found.what.as_str()).collect();
            assert_eq!(said, [name], "{is_huge}");
            let there = lab.site(&format!("there-{is_huge}"));
            assert!(there.import(&bundle).unwrap().active.is_some(), "{name}");
        }
    }
}

#[test]
fn a_key_that_is_not_there_and_several_bundles_are_called_so() {
    let named = Trust::read(&["/nonexistent/key.pub".to_owned()]).unwrap_err();
    assert!(named.to_string().contains("is no file that is here"), "{named}");
    let lab = Lab::new();
    for name in ["one.head", "two.head"] {
        let head = lab.folder.path().join("medium").join(name);
        durable::create_folder(&head).unwrap();
        durable::write(&head.join("BUNDLE.json"), b"{}", 0o644).unwrap();
    }
    let said = refusal(&lab, &lab.folder.path().join("medium"));
    assert!(said.contains("one.head") && said.contains("two.head"), "{said}");
}

#[test]
fn names_that_lead_elsewhere_or_stand_twice_are_refused_even_when_they_are_signed() {
    for (what, expected) in [
        ("../../../etc/cron.d/x", "no name of a member"),
        ("/etc/passwd", "no name of a member"),
        ("blobs/sha256/..", "no name of a member"),
        ("twice", "stands there twice"),
        ("other digest", "another digest than its name"),
        ("volume", "in volume 9"),
        ("format", "has the format"),
        ("series", "no name of a series"),
        ("importer_min", "needs kato-proxy 99.0 or newer"),
        ("seq", "the sequence number is 18446744073709551615"),
    ] {
        let lab = Lab::new();
        let folder = bundle(&lab, &Order::default());
        reseal(&lab, &folder, |header, members| match what {
            "twice" => members.push(members[0].clone()),
            "other digest" => members[0]["sha256"] = json!(Digest::of(b"other")),
            "volume" => members[0]["volume"] = json!(9),
            "format" => header["format"] = json!("kato/bundle/99"),
            "series" => header["series"] = json!("../x"),
            "importer_min" => header["importer_min"] = json!("99.0"),
            "seq" => header["seq"] = json!(u64::MAX),
            path => members[0]["path"] = json!(path),
        });
        let said = refusal(&lab, &folder);
        assert!(said.contains(expected), "{what}: {said}");
    }
}

#[test]
fn links_and_strangers_in_the_folder_are_refused() {
    let lab = Lab::new();
    let folder = bundle(&lab, &Order::default());
    let bundle = lab.open(&folder);
    let payload = bundle
        .table
        .values()
        .find(|member| member.role == Role::Payload)
        .unwrap();
    let path = folder.join(&payload.path);
    let aside = lab.folder.path().join("aside");
    durable::rename(&path, &aside).unwrap();
    symlink(&aside, &path).unwrap();
    symlink("/etc/passwd", folder.join("blobs/sha256/passwd")).unwrap();
    durable::write(&folder.join("evil.sh"), b"#!/bin/sh", 0o755).unwrap();
    let report = verify(&bundle, &[], Depth::Full).unwrap();
    let said: Vec<String> = report
        .findings
        .iter()
        .map(|found| format!("{} {}", found.what, found.problem))
        .collect();
    assert!(said.iter().any(|said| said.contains("symbolic link")), "{said:?}");
    assert!(
        said.iter()
            .any(|said| said.contains("passwd the file is not in the signed table")),
        "{said:?}"
    );
    assert!(
        said.iter()
            .any(|said| said.contains("evil.sh the file is not in the signed table")),
        "{said:?}"
    );
    let there = lab.site("there");
    let imported = there.import(&bundle).unwrap();
    assert!(imported.wanted.is_some() && imported.active.is_none());

    durable::rename(&folder.join("blobs"), &lab.folder.path().join("blobs")).unwrap();
    symlink(lab.folder.path().join("blobs"), folder.join("blobs")).unwrap();
    let said = refusal(&lab, &folder);
    assert!(said.contains("blobs` of the bundle is a symbolic link"), "{said}");
    let report = verify(&bundle, &[], Depth::Full).unwrap();
    let found = report
        .findings
        .iter()
        .find(|found| found.what == "blobs")
        .unwrap();
    assert!(found.problem.contains("symbolic link"), "{found:?}");
}

#[test]
fn members_of_other_sizes_and_a_chunk_that_explodes_are_refused() {
    let lab = Lab::new();
    let folder = bundle(&lab, &Order::default());
    let there = lab.site("there");
    // A size that is signed and wrong.
    reseal(&lab, &folder, |_, members| {
        let payload = members
            .iter_mut()
            .find(|member| member["role"] == "payload")
            .unwrap();
        payload["size"] = json!(10);
    });
    let imported = there.import(&lab.open(&folder)).unwrap();
    assert!(
        imported.findings[0].problem.contains("expected 10"),
        "{:?}",
        imported.findings
    );
    assert!(imported.active.is_none());
    // A root whose chunk unpacks to gigabytes.
    let bomb = zstd::bulk::compress(&vec![b' '; 80 << 20], 19).unwrap();
    let (digest, size) = (Digest::of(&bomb), bomb.len());
    let root = json!({
        "format": "kato/snapshot/1", "entries": 1, "contents": 1, "bytes": 1,
        "chunks": [{"first": "GET http://a/", "digest": digest, "size": size, "unpacked": 1_u64 << 40, "entries": 1}],
    })
    .to_string();
    let root_digest = Digest::of(root.as_bytes());
    for (digest, bytes) in [(digest, bomb.as_slice()), (root_digest, root.as_bytes())] {
        durable::write(&folder.join("blobs/sha256").join(digest.hex()), bytes, 0o644).unwrap();
    }
    reseal(&lab, &folder, |header, members| {
        header["root"] = json!(root_digest);
        header["seq"] = json!(2);
        for (digest, size) in [(digest, size), (root_digest, root.len())] {
            members.push(json!({
                "path": format!("blobs/sha256/{}", digest.hex()), "size": size, "sha256": digest, "volume": 0, "role": "snapshot",
            }));
        }
    });
    let bomb = there.import(&lab.open(&folder));
    assert!(matches!(bomb, Err(BundleError::Snapshot(_))), "{bomb:?}");
    assert_eq!(there.library.active().unwrap(), None);
}
