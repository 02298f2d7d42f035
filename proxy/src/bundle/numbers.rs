//! The next number of a series: the one after the last, or, where the records of it were lost, one that no bundle had.
//!
//! What left after the document by which a lost series goes on may be on its way still, and the same document may be given after the next loss:
//! the number jumps by [`UNSEEN`] and by the seconds since that document, and stands behind whatever lies in the folder of bundles. So numbers come
//! twice only where two machines go on from the same document within one second, or somebody exported more than a bundle a second.

use std::{fs, path::Path};

use jiff::Timestamp;

use super::{BundleError, header::name, receipt::Place};
use crate::snapshot::Record;

/// By how much the numbers of a series go on at least that nobody here knows.
pub(super) const UNSEEN: u64 = 1000;
/// The most by which a clock makes them go on, ten years of seconds: one that is wrong by more does not use them up.
const MOST_SECONDS: u64 = 10 * 366 * 86400;
/// How far beyond what is known here the number of a document may be that nobody has signed: more than clocks make of a few losses. Whoever could write any
/// number into it could use them all up.
pub(super) const MOST_UNSIGNED: u64 = 500_000_000;

/// The place from which a series goes on whose records were lost: that of `place`, where nothing here is as far.
pub(super) fn lost(last: Option<&Record>, place: Option<Place>) -> Option<Place> {
    place.filter(|place| last.is_none_or(|last| last.series_id == place.series_id && last.seq < place.seq))
}

/// The series that goes on, and its next number: after `last`, or after `place` where that is further. None where no number comes after it.
///
/// # Errors
/// [`BundleError::Leap`].
pub(super) fn next(
    (series, out): (&str, &Path),
    last: Option<&Record>,
    place: Option<Place>,
    now: Timestamp,
) -> Result<Option<(String, u64)>, BundleError> {
    let known = last.map_or(0, |last| last.seq);
    let Some(place) = lost(last, place) else {
        return Ok(last.and_then(|last| Some((last.series_id.clone(), last.seq.checked_add(1)?))));
    };
    let most = known.saturating_add(MOST_UNSIGNED);
    if !place.is_signed && place.seq > most {
        return Err(BundleError::Leap {
            series: series.to_owned(),
            found: place.seq,
            known,
            most,
        });
    }
    let seconds = place
        .at
        .map_or(0, |at| now.as_second().saturating_sub(at.as_second()));
    let jump = UNSEEN + u64::try_from(seconds).unwrap_or(0).min(MOST_SECONDS);
    let behind = highest(out, series).and_then(|highest| highest.checked_add(1));
    let seq = place
        .seq
        .checked_add(jump)
        .map(|seq| seq.max(behind.unwrap_or(0)));
    Ok(seq.map(|seq| (place.series_id, seq)))
}

/// The highest number of a bundle of `series` that lies in `out`, whole or not.
fn highest(out: &Path, series: &str) -> Option<u64> {
    let entries = fs::read_dir(out).ok()?.flatten();
    let numbers = entries.filter_map(|entry| {
        let found = entry.file_name();
        let digits = found.to_str()?.strip_prefix(series)?.strip_prefix('-')?;
        let end = digits.find(|letter: char| !letter.is_ascii_digit());
        let number = digits[..end.unwrap_or(digits.len())].parse().ok()?;
        // As we write it, and nothing that begins like it.
        let rest = found.to_str()?.strip_prefix(&name(series, number))?;
        let is_ours = rest.is_empty() || rest.starts_with('.');
        // One that nobody can have written in this way is no reason to go there.
        (is_ours && number <= MOST_UNSIGNED.saturating_mul(2)).then_some(number)
    });
    numbers.max()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(seq: u64) -> Record {
        Record {
            series: "prod".into(),
            series_id: "1".into(),
            seq,
            root: kato_shared::Digest::of(b"x"),
            created: Timestamp::UNIX_EPOCH,
        }
    }

    fn place(seq: u64, is_signed: bool) -> Place {
        Place {
            series_id: "1".into(),
            seq,
            at: Some(Timestamp::UNIX_EPOCH),
            is_signed,
        }
    }

    fn number(last: Option<u64>, place: Option<Place>, (out, seconds): (&Path, i64)) -> Option<u64> {
        let (last, now) = (last.map(record), Timestamp::from_second(seconds).unwrap());
        let found = next(("prod", out), last.as_ref(), place, now).unwrap();
        found.map(|(_, seq)| seq)
    }

    #[test]
    fn the_next_number_is_one_that_no_bundle_had() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path();
        let (ten_years, later) = (i64::try_from(MOST_SECONDS).unwrap(), 1 << 33);
        for (last, document, seconds, expected) in [
            (None, None, 0, None),
            (Some(4), None, 0, Some(5)),
            (Some(u64::MAX), None, 0, None),
            // What the site knows is known here.
            (Some(4), Some(4), 0, Some(5)),
            (Some(4), Some(7), 0, Some(1007)),
            (None, Some(7), 0, Some(1007)),
            // The same document later; and a clock that stands before it.
            (None, Some(7), 1, Some(1008)),
            (None, Some(7), 86_400, Some(87_407)),
            (None, Some(7), -5, Some(1007)),
            (None, Some(7), ten_years, Some(1007 + MOST_SECONDS)),
            (None, Some(7), later, Some(1007 + MOST_SECONDS)),
        ] {
            let document = document.map(|seq| place(seq, false));
            assert_eq!(
                number(last, document, (out, seconds)),
                expected,
                "{last:?} {seconds}"
            );
        }
    }

    /// A second loss within the same second, by the same document: what was written from it lies there.
    #[test]
    fn what_lies_in_the_folder_of_bundles_is_behind_the_next_number() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path();
        let number = || number(None, Some(place(7, false)), (out, 0));
        for (name, expected) in [
            ("other-009000", 1007),
            ("prod-x", 1007),
            ("prod-9000", 1007),
            ("prod-009000x", 1007),
            ("prod-99999999999999", 1007),
            ("prod-000009", 1007),
            ("prod-001007", 1008),
            ("prod-001008.partial", 1009),
            ("prod-001009.head", 1010),
            ("prod-1234567.v001-of-002.tar", 1_234_568),
        ] {
            fs::create_dir(out.join(name)).unwrap();
            assert_eq!(number(), Some(expected), "{name}");
        }
    }

    #[test]
    fn a_number_that_nobody_has_signed_leads_only_so_far() {
        let out = Path::new("/nowhere");
        let now = Timestamp::UNIX_EPOCH;
        let far = 10 + MOST_UNSIGNED;
        let next = |document| next(("prod", out), Some(&record(10)), Some(document), now);
        assert_eq!(
            next(place(far, false)).unwrap(),
            Some(("1".to_owned(), far + UNSEEN))
        );
        let refused = next(place(far + 1, false)).unwrap_err().to_string();
        assert!(
            refused.contains(&far.to_string()) && refused.contains("--receipt-trust"),
            "{refused}"
        );
        assert!(next(place(far + 1, true)).unwrap().is_some());
        assert_eq!(next(place(u64::MAX, true)).unwrap(), None);
    }
}
