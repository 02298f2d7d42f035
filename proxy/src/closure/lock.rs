//! Lock files: each entry by its digest, wherever it came from.

use kato_shared::Digest;

use super::Check;
use crate::{
    ecosystem::{Integrity, npm},
    prefetch::{Lock, LockKind},
};

pub(super) fn check(check: &mut Check<'_>, lock: &Lock) {
    check.about(format!("lock file {}", lock.path));
    for left_out in &lock.left_out {
        check.gap(format!("left out: {left_out}"));
    }
    for package in &lock.packages {
        let name = format!("{} {}", package.name, package.version);
        match lock.kind {
            LockKind::Cargo => match package.digests.first().and_then(|digest| digest.parse().ok()) {
                Some(digest) => check.needs_content(&digest, &name),
                None => check.gap(format!("{name}: the lock file has no digest")),
            },
            // Any of its files: which one a machine takes depends on the machine, and all were fetched together.
            LockKind::Pip => {
                check.report.checked += 1;
                let mut digests = package
                    .digests
                    .iter()
                    .filter_map(|digest| digest.parse::<Digest>().ok());
                if !digests.any(|digest| check.held.contains_key(&digest)) {
                    check.gap(name);
                }
            }
            LockKind::Npm => tarball(check, &name, package.address.as_deref(), &package.digests),
        }
    }
}

/// npm names SHA-512, by which nothing is kept: the file is looked for by its place, at whichever registry, and compared.
fn tarball(check: &mut Check<'_>, name: &str, address: Option<&str>, digests: &[String]) {
    check.report.checked += 1;
    let expected = digests.first().and_then(|text| npm::integrity(text));
    if let Some(Integrity::Sha256(digest)) = expected {
        return check.needs_content(&digest, name);
    }
    let path = address
        .and_then(|address| url::Url::parse(address).ok())
        .map(|url| url.path().to_owned());
    let is_it = |entry: &crate::snapshot::Entry| {
        let Some(expected) = expected else { return true };
        (check.content)(&entry.digest).is_some_and(|bytes| expected.of(entry.digest, &bytes) == expected)
    };
    let is_there = path.is_some_and(|path| {
        let entries = check.snapshot.entries().iter();
        entries
            .filter(|entry| entry.status == 200 && entry.url().ends_with(&path))
            .any(is_it)
    });
    if !is_there {
        check.gap(address.map_or_else(|| name.to_owned(), str::to_owned));
    }
}
