//! Judging a bundle without taking it in: what is signed, what is here, what is wrong, and how that is known.

use std::{collections::BTreeSet, fs, path::PathBuf};

use kato_shared::Digest;
use serde::Serialize;

use super::{
    BundleError,
    finding::{Finding, Problem, finding, name_urls},
    header::{Kind, LARGEST_HEADER, LARGEST_TABLE, Member, Role},
    import::snapshot_of,
    medium::{Bundle, Sink, bounded_digest, open_regular, read_bounded},
    tar::Name,
};

/// What a head may hold beside blobs that the table names. `parts` is there once volumes are unpacked.
const HEAD: [&str; 11] = [
    "BUNDLE.json",
    "BUNDLE.json.minisig",
    "BUNDLE.json.sigstore.json",
    "SHA256SUMS",
    "MEMBERS.jsonl",
    "README.txt",
    "index.json",
    "oci-layout",
    "blobs",
    "blobs/sha256",
    "parts",
];

/// Tables of the head that other programs read, and an import does not.
const TABLES: [&str; 2] = ["SHA256SUMS", "index.json"];

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

/// Notes what passes.
#[derive(Debug, Default)]
struct Counting {
    whole: BTreeSet<Name>,
    bytes: u64,
}

impl Sink for Counting {
    fn wants(&mut self, _name: &Name, _member: &Member) -> bool {
        true
    }

    fn piece(&mut self, _name: &Name, _member: &Member, _bytes: &[u8]) -> Result<(), BundleError> {
        Ok(())
    }

    fn end(&mut self, name: &Name, member: &Member, is_whole: bool) -> Result<(), BundleError> {
        if is_whole {
            self.whole.insert(*name);
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
    let mut findings = head_files(bundle);
    let are_tables_wrong = findings.iter().any(|found| TABLES.contains(&found.what.as_str()));
    evidence.push(if are_tables_wrong {
        "MEMBERS.jsonl has the digest that BUNDLE.json names".to_owned()
    } else {
        "SHA256SUMS, MEMBERS.jsonl and index.json have the digests that BUNDLE.json names".to_owned()
    });
    findings.extend(strangers(bundle));
    let whole = read((bundle, others), depth, &mut evidence, &mut findings)?;
    let lost = lost(bundle, &whole);
    if !lost.is_empty() {
        evidence.push(format!(
            "{} of {} contents that the bundle carries are not whole",
            lost.len(),
            bundle.header.counts.blobs_here
        ));
    }
    match snapshot_of(bundle, None) {
        Ok(snapshot) => {
            name_urls(&mut findings, bundle, &snapshot);
            if bundle.header.kind == Kind::Full {
                let here: BTreeSet<Digest> = bundle.table.keys().map(Name::digest).collect();
                let is_absent = |digest: &&Digest| !here.contains(digest) || lost.contains(digest);
                let contents = snapshot.contents();
                evidence.push(format!(
                    "the snapshot names {} contents, {} of them are not in the bundle or not whole",
                    contents.len(),
                    contents.keys().filter(is_absent).count()
                ));
            }
        }
        Err(_of_another_bundle) if bundle.header.kind != Kind::Full => {
            evidence.push("the snapshot needs chunks that an earlier bundle brought".to_owned());
        }
        Err(error) => findings.push(finding("snapshot", None, error.to_string())),
    }
    Ok(Report {
        schema: 1,
        bundle: bundle.header.name(),
        root: bundle.header.root,
        evidence,
        findings,
    })
}

/// Looks at all members; returns those that are whole.
fn read(
    (bundle, others): (&Bundle, &[PathBuf]),
    depth: Depth,
    evidence: &mut Vec<String>,
    findings: &mut Vec<Finding>,
) -> Result<BTreeSet<Name>, BundleError> {
    match depth {
        Depth::Quick => {
            let found = sizes(bundle, others);
            let whole = without(bundle, &found);
            findings.extend(found);
            evidence.push(format!(
                "{} members, of which only the sizes of files were looked at",
                bundle.table.len()
            ));
            Ok(whole)
        }
        Depth::Full => {
            let mut counting = Counting::default();
            findings.extend(bundle.walk(others, &mut counting)?);
            evidence.push(format!(
                "{} of {} members have their digests; {} bytes were read",
                counting.whole.len(),
                bundle.table.len(),
                counting.bytes
            ));
            Ok(counting.whole)
        }
    }
}

/// The members of `bundle` but those that `findings` are about, or that lie in volumes that they are about.
fn without(bundle: &Bundle, findings: &[Finding]) -> BTreeSet<Name> {
    let wrong: BTreeSet<&str> = findings.iter().map(|finding| finding.what.as_str()).collect();
    let volumes = bundle.header.volumes.iter();
    let volumes: BTreeSet<u32> = volumes
        .filter(|volume| wrong.contains(volume.file.as_str()))
        .map(|volume| volume.n)
        .collect();
    let members = bundle.table.iter();
    members
        .filter(|(_, member)| !wrong.contains(member.path.as_str()) && !volumes.contains(&member.volume))
        .map(|(name, _)| *name)
        .collect()
}

/// The contents that the bundle carries and that are not `whole`; of those in parts, each part has to be.
fn lost(bundle: &Bundle, whole: &BTreeSet<Name>) -> BTreeSet<Digest> {
    let payloads = bundle.table.iter();
    payloads
        .filter(|(name, member)| member.role == Role::Payload && !whole.contains(*name))
        .map(|(name, _)| name.digest())
        .collect()
}

/// The files of the head that are not members: two tables that no import needs, and what the first of them names.
fn head_files(bundle: &Bundle) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut compare = |file: &str, expected: Option<Digest>, limit, named_by: &str| {
        let found = bounded_digest(&bundle.head.join(file), limit).ok();
        let is_right = expected.is_some() && found == expected;
        if !is_right {
            let problem = format!("the file is missing or not what {named_by} says");
            findings.push(finding(file, None, problem));
        }
        is_right
    };
    let [sums, index] = TABLES;
    compare(
        index,
        Some(bundle.header.index_json),
        LARGEST_TABLE,
        "BUNDLE.json",
    );
    if !compare(sums, Some(bundle.header.sums), LARGEST_TABLE, "BUNDLE.json") {
        return findings;
    }
    let sums = read_bounded(&bundle.head.join(sums), LARGEST_TABLE).unwrap_or_default();
    let sums = String::from_utf8_lossy(&sums);
    for file in ["README.txt", "oci-layout"] {
        let expected = sums.lines().find_map(|line| {
            line.strip_suffix(file)?
                .strip_suffix("  ")?
                .parse::<Digest>()
                .ok()
        });
        compare(file, expected, LARGEST_HEADER, "SHA256SUMS");
    }
    findings
}

/// What lies in the head and is no part of the bundle, and folders that are none.
fn strangers(bundle: &Bundle) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (folder, prefix) in [("", ""), ("blobs", "blobs/"), ("blobs/sha256", "blobs/sha256/")] {
        let path = bundle.head.join(folder);
        if !folder.is_empty() && path.is_symlink() {
            let problem = "the folder is a symbolic link".to_owned();
            findings.push(finding(folder, None, problem));
            break;
        }
        for item in fs::read_dir(path).into_iter().flatten().flatten() {
            let path = format!("{prefix}{}", item.file_name().to_string_lossy());
            if !is_known(bundle, &path) {
                let problem = "the file is not in the signed table".to_owned();
                findings.push(finding(&path, None, problem));
            }
        }
    }
    findings.sort_by(|one, other| one.what.cmp(&other.what));
    findings
}

/// Whether the bundle has something at `path` in its head. `parts` is there once volumes are unpacked.
fn is_known(bundle: &Bundle, path: &str) -> bool {
    HEAD.contains(&path)
        || bundle.header.volumes.iter().any(|volume| volume.file == path)
        || Name::parse(path)
            .and_then(|name| bundle.table.get(&name))
            .is_some_and(|member| member.volume == 0)
}

/// Files that are missing or have another size.
pub(super) fn sizes(bundle: &Bundle, others: &[PathBuf]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for member in bundle.table.values().filter(|member| member.volume == 0) {
        let found = open_regular(&bundle.head.join(&member.path), Some(member.size));
        findings.extend(found.err().map(|problem| finding(&member.path, None, problem)));
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
        let places = bundle.places(volume, others).into_iter();
        let found: Vec<_> = places
            .map(|path| open_regular(&path, Some(volume.size)))
            .collect();
        if found.iter().any(Result::is_ok) {
            continue;
        }
        let problem = found.into_iter().find_map(Result::err);
        let problem = problem.unwrap_or_else(|| Problem::missing("the volume is missing"));
        findings.push(finding(&volume.file, Some(volume), problem));
    }
    findings
}
