//! What may be imported after what: by series, sequence and root. Pure, and without a clock: a bundle lies on a medium for weeks.

use super::header::Header;
use crate::snapshot::Record;

/// Why a bundle does not come in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// An older one than what is served.
    #[error("{series} {seq} is old: {active} is active\nhint: --allow-rollback takes it all the same")]
    Old {
        /// The series.
        series: String,
        /// The bundle.
        seq: u64,
        /// What is served.
        active: u64,
    },
    /// The same number with another root.
    #[error(
        "{series} {seq} has another root than the {series} {seq} that is here\nhint: one of the two was not made by the exporter of this series; ask it"
    )]
    Fork {
        /// The series.
        series: String,
        /// The bundle.
        seq: u64,
    },
    /// A series of that name that began anew.
    #[error(
        "{series} {seq} is of another series with the same name ({found}, known is {known})\nhint: --allow-rollback takes it all the same"
    )]
    OtherSeries {
        /// The series.
        series: String,
        /// The bundle.
        seq: u64,
        /// Its series.
        found: String,
        /// The one that is known.
        known: String,
    },
}

/// Whether the bundle of `header` may come in where `active` is served and `known` is here, whole or in part. With `allow_rollback`
/// an older one may.
///
/// # Errors
/// [`ReplayError`].
pub fn judge(
    header: &Header,
    active: Option<&Record>,
    known: &[Record],
    allow_rollback: bool,
) -> Result<(), ReplayError> {
    let (series, seq) = (header.series.clone(), header.seq);
    let same_place = known
        .iter()
        .find(|record| record.series == series && record.seq == seq);
    if let Some(record) = same_place
        && record.series_id == header.series_id
        && record.root != header.root
    {
        return Err(ReplayError::Fork { series, seq });
    }
    if allow_rollback {
        return Ok(());
    }
    let latest = active
        .filter(|record| record.series == series)
        .or_else(|| known.iter().rev().find(|record| record.series == series));
    if let Some(record) = latest
        && record.series_id != header.series_id
    {
        return Err(ReplayError::OtherSeries {
            series,
            seq,
            found: header.series_id.clone(),
            known: record.series_id.clone(),
        });
    }
    match active {
        Some(active) if active.series == series && seq < active.seq => Err(ReplayError::Old {
            series,
            seq,
            active: active.seq,
        }),
        Some(_) | None => Ok(()),
    }
}
