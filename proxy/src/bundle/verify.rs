//! Judging a bundle without taking it in: what is signed, what is here, what is wrong, and how that is known.

use std::{collections::BTreeSet, fs, path::PathBuf};

use kato_shared::Digest;
use serde::Serialize;

use super::{
    BundleError,
    header::{Kind, Member, Role},
    import::{name_urls, snapshot_of},
    medium::{Bundle, Finding, Sink, digest_of},
    tar::Name,
};

/// How much is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Signature, tables, and the sizes of files.
    Quick,
    /// Every byte.
    Full,
}

/// What was found, for a person who has to answer for it.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The version of this document; 1.
    pub schema: u32,
    /// The name of the bundle.
    pub bundle: String,
    /// Its root.
    pub root: Digest,
    /// Lines that say what was checked and how.
    pub evidence: Vec<String>,
    /// What is wrong.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_good(&self) -> bool {
        self.findings.is_empty()
    }
}

/// Counts what passes.
#[derive(Debug, Default)]
struct Counting {
    members: u64,
    bytes: u64,
}

impl Sink for Counting {
    fn wants(&mut self, _name: &Name, _member: &Member) -> bool {
        true
    }

    fn piece(&mut self, _name: &Name, _member: &Member, _bytes: &[u8]) -> Result<(), BundleError> {
        Ok(())
    }

    fn end(&mut self, _name: &Name, member: &Member, is_whole: bool) -> Result<(), BundleError> {
        if is_whole {
            self.members += 1;
            self.bytes += member.size;
        }
        Ok(())
    }
}

/// Judges `bundle`, whose signature and tables hold already; `others` are further folders in which volumes may lie.
///
/// # Errors
/// [`BundleError`] when it cannot be read at all.
pub fn verify(bundle: &Bundle, others: &[PathBuf], depth: Depth) -> Result<Report, BundleError> {
    let mut evidence = Vec::new();
    if let Some(signed) = &bundle.signed {
        evidence.push(format!(
            "BUNDLE.json is signed by {} ({})",
            signed.key, signed.comment
        ));
    }
    evidence
        .push("SHA256SUMS, MEMBERS.jsonl and index.json have the digests that BUNDLE.json names".to_owned());
    let mut findings = head_files(bundle)?;
    findings.extend(strangers(bundle));
    match depth {
        Depth::Quick => {
            findings.extend(sizes(bundle, others));
            evidence.push(format!(
                "{} members, of which only the sizes of files were looked at",
                bundle.table.len()
            ));
        }
        Depth::Full => {
            let mut counting = Counting::default();
            findings.extend(bundle.walk(others, &mut counting)?);
            evidence.push(format!(
                "{} of {} members have their digests; {} bytes were read",
                counting.members,
                bundle.table.len(),
                counting.bytes
            ));
        }
    }
    match snapshot_of(bundle, None) {
        Ok(snapshot) => {
            name_urls(&mut findings, &snapshot);
            if bundle.header.kind == Kind::Full {
                let here: BTreeSet<Digest> = bundle.table.keys().map(Name::digest).collect();
                let lost = snapshot
                    .contents()
                    .keys()
                    .filter(|digest| !here.contains(digest))
                    .count();
                evidence.push(format!(
                    "the snapshot names {} contents, {lost} of them are not in the bundle",
                    snapshot.contents().len()
                ));
            }
        }
        Err(_of_another_bundle) if bundle.header.kind != Kind::Full => {
            evidence.push("the snapshot needs chunks that an earlier bundle brought".to_owned());
        }
        Err(error) => findings.push(finding("snapshot", error.to_string())),
    }
    Ok(Report {
        schema: 1,
        bundle: bundle.header.name(),
        root: bundle.header.root,
        evidence,
        findings,
    })
}

/// The files of the head that are not members, against `SHA256SUMS`.
fn head_files(bundle: &Bundle) -> Result<Vec<Finding>, BundleError> {
    let path = bundle.head.join("SHA256SUMS");
    let sums = super::medium::read_bounded(&path, super::header::LARGEST_TABLE)?;
    let sums = String::from_utf8_lossy(&sums);
    let mut findings = Vec::new();
    for file in ["README.txt", "oci-layout"] {
        let expected = sums.lines().find_map(|line| {
            line.strip_suffix(file)?
                .strip_suffix("  ")?
                .parse::<Digest>()
                .ok()
        });
        let found = digest_of(&bundle.head.join(file)).ok();
        if expected.is_none() || found != expected {
            findings.push(finding(
                file,
                "the file is missing or not what SHA256SUMS says".to_owned(),
            ));
        }
    }
    Ok(findings)
}

/// Files where members lie that are none.
fn strangers(bundle: &Bundle) -> Vec<Finding> {
    let folder = bundle.head.join("blobs").join("sha256");
    let mut findings = Vec::new();
    for item in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = format!("blobs/sha256/{}", item.file_name().to_string_lossy());
        let is_known = Name::parse(&path)
            .and_then(|name| bundle.table.get(&name))
            .is_some_and(|member| member.volume == 0);
        if !is_known {
            findings.push(finding(&path, "the file is not in the signed table".to_owned()));
        }
    }
    findings.sort_by(|one, other| one.what.cmp(&other.what));
    findings
}

/// Files that are missing or have another size.
pub(super) fn sizes(bundle: &Bundle, others: &[PathBuf]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for member in bundle.table.values().filter(|member| member.volume == 0) {
        let found = fs::symlink_metadata(bundle.head.join(&member.path));
        if !found.is_ok_and(|found| found.is_file() && found.len() == member.size) {
            findings.push(finding(
                &member.path,
                format!("expected a file of {} bytes", member.size),
            ));
        }
    }
    let has_payload_in = |n: u32| {
        bundle
            .table
            .values()
            .any(|member| member.volume == n && member.role == Role::Payload)
    };
    for volume in bundle
        .header
        .volumes
        .iter()
        .filter(|volume| has_payload_in(volume.n))
    {
        let folders = [bundle.head.parent(), Some(bundle.head.as_path())];
        let mut places = folders
            .into_iter()
            .flatten()
            .chain(others.iter().map(PathBuf::as_path));
        let is_there = places.any(|folder| {
            fs::symlink_metadata(folder.join(&volume.file))
                .is_ok_and(|found| found.is_file() && found.len() == volume.size)
        });
        if !is_there {
            findings.push(finding(
                &volume.file,
                format!("expected a file of {} bytes", volume.size),
            ));
        }
    }
    findings
}

fn finding(what: &str, problem: String) -> Finding {
    Finding {
        what: what.to_owned(),
        volume: None,
        problem,
        urls: Vec::new(),
    }
}
