//! What in a snapshot expires: suites of packages, whose `Release` says until when clients accept it.
//!
//! Keys that expire are not looked for: a signature of an expired key is refused by clients whatever is done here.

use std::{fs::File, io::Read as _};

use jiff::Timestamp;

use super::header::Horizon;
use crate::{snapshot::Snapshot, store::Store};

/// How much of a `Release` is read: its fields stand at its beginning.
const BEGINNING: u64 = 16 << 10;

/// The suites in `snapshot`, with their times.
pub(super) fn horizon(store: &Store, snapshot: &Snapshot) -> Vec<Horizon> {
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
        let mut text = Vec::new();
        let read = File::open(store.content_path(&entry.digest))
            .and_then(|file| file.take(BEGINNING).read_to_end(&mut text));
        if read.is_ok() {
            let text = String::from_utf8_lossy(&text);
            let suite = Horizon {
                what: format!("{archive} {suite}"),
                date: time(&text, "Date"),
                valid_until: time(&text, "Valid-Until"),
            };
            found.push(suite);
        }
    }
    found.dedup_by(|one, other| one.what == other.what);
    found
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
