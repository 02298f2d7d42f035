//! What in a snapshot expires: suites of packages, whose `Release` says until when clients accept it, and the keys that have signed them. A
//! signature of an expired key is refused by clients whatever they are told about `Valid-Until`.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
};

use jiff::Timestamp;

use super::header::Horizon;
use crate::{
    archive_keys::{RingKey, signers},
    snapshot::{Entry, Snapshot},
    store::Store,
};

/// How much of a `Release` is read: its fields stand at its beginning.
const BEGINNING: u64 = 16 << 10;

/// Whether there is a signed suite in `snapshot`.
pub(super) fn has_suites(snapshot: &Snapshot) -> bool {
    let mut entries = snapshot.entries().iter();
    entries.any(|entry| entry.url().contains("/dists/") && entry.url().ends_with("/InRelease"))
}

/// How much of its end is read, where the signatures stand.
const END: u64 = 32 << 10;

/// The suites in `snapshot`, with their times and their keys, as far as these are in `ring`.
pub(super) fn horizon(store: &Store, snapshot: &Snapshot, ring: &[RingKey]) -> Vec<Horizon> {
    let mut found = Vec::new();
    for entry in snapshot.entries().iter().filter(|entry| entry.status == 200) {
        let Some((archive, suite)) = entry.url().split_once("/dists/") else {
            continue;
        };
        let Some(suite) = suite
            .strip_suffix("/InRelease")
            .or_else(|| suite.strip_suffix("/Release"))
        else {
            continue;
        };
        if let Ok((beginning, end)) = ends(store, entry) {
            let text = String::from_utf8_lossy(&beginning);
            let suite = Horizon {
                what: format!("{archive} {suite}"),
                date: time(&text, "Date"),
                valid_until: time(&text, "Valid-Until"),
                keys: signers(&String::from_utf8_lossy(&end), ring),
            };
            found.push(suite);
        }
    }
    found.dedup_by(|one, other| one.what == other.what);
    found
}

/// The beginning and the end of a document.
fn ends(store: &Store, entry: &Entry) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let mut file = File::open(store.content_path(&entry.digest))?;
    let (mut beginning, mut end) = (Vec::new(), Vec::new());
    (&mut file).take(BEGINNING).read_to_end(&mut beginning)?;
    file.seek(SeekFrom::Start(entry.length.saturating_sub(END)))?;
    file.take(END).read_to_end(&mut end)?;
    Ok((beginning, end))
}

/// The time in the field `name` (Debian's `RepositoryFormat`: RFC 2822, in UTC).
fn time(text: &str, name: &str) -> Option<Timestamp> {
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?
        .trim();
    let value = value
        .strip_suffix("UTC")
        .map_or_else(|| value.to_owned(), |value| format!("{value}+0000"));
    jiff::fmt::rfc2822::DateTimeParser::new()
        .parse_timestamp(&value)
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_of_a_suite_are_read() {
        let text = "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\nOrigin: Debian\nDate: Fri, 20 Nov 2026 00:12:41 UTC\nValid-Until: Fri, 27 Nov 2026 00:12:41 UTC\n";
        assert_eq!(time(text, "Date"), "2026-11-20T00:12:41Z".parse().ok());
        assert_eq!(time(text, "Valid-Until"), "2026-11-27T00:12:41Z".parse().ok());
        assert_eq!(time(text, "Suite"), None);
    }
}
