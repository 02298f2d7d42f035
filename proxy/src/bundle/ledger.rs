//! What may be imported after what: by series, sequence and root. Pure, and without a clock: a bundle lies on a medium for weeks.

use serde::{Deserialize, Serialize};

use super::header::Header;
use crate::snapshot::Record;

/// Why a bundle does not come in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// An older one than what was served before.
    #[error("{series} {seq} is old: {latest} is here\nhint: --allow-rollback takes it all the same")]
    Old {
        /// The series.
        series: String,
        /// The bundle.
        seq: u64,
        /// The newest of the series that came whole, whatever is served now.
        latest: u64,
    },
    /// Another series is served, and would be no more.
    #[error(
        "{series} {seq} would take the place of {served}: a store serves one series at a time\nhint: --replace-series takes it all the same; or import it into a store of its own"
    )]
    Displaces {
        /// The series.
        series: String,
        /// The bundle.
        seq: u64,
        /// The series that is served.
        served: String,
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

/// What an operator lets in that would be refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Allowed {
    /// A bundle that is older than what came, or of a series of the same name that began anew.
    pub rollback: bool,
    /// A bundle of another series than the one that is served.
    pub other_series: bool,
}

/// What is here of snapshots that came.
#[derive(Debug, Clone, Copy)]
pub struct Here<'h> {
    /// The one that is served.
    pub active: Option<&'h Record>,
    /// Those of the bundle's series that came whole, in order.
    pub whole: &'h [Record],
    /// Those of it that lack something, in order.
    pub pending: &'h [Record],
}

/// Whether the bundle of `header` may come in.
///
/// What counts is the newest of the series that came whole, not what is served: another series in between, or a rollback, makes no old bundle new.
///
/// # Errors
/// [`ReplayError`].
pub fn judge(header: &Header, here: Here<'_>, allowed: Allowed) -> Result<(), ReplayError> {
    let (series, seq) = (header.series.clone(), header.seq);
    let known = || here.whole.iter().chain(here.pending);
    let same_place = known().find(|record| record.seq == seq);
    if let Some(record) = same_place
        && record.series_id == header.series_id
        && record.root != header.root
    {
        return Err(ReplayError::Fork { series, seq });
    }
    if let Some(active) = here.active
        && active.series != series
        && !allowed.other_series
    {
        return Err(ReplayError::Displaces {
            series,
            seq,
            served: format!("{} {}", active.series, active.seq),
        });
    }
    if allowed.rollback {
        return Ok(());
    }
    let active = here.active.filter(|record| record.series == series);
    let latest = here.whole.iter().chain(active).max_by_key(|record| record.seq);
    if let Some(record) = active.or(latest).or(here.pending.last())
        && record.series_id != header.series_id
    {
        return Err(ReplayError::OtherSeries {
            series,
            seq,
            found: header.series_id.clone(),
            known: record.series_id.clone(),
        });
    }
    // Once more what is served: that changes nothing.
    let is_active = active.is_some_and(|active| active.seq == seq);
    match latest {
        Some(latest) if seq < latest.seq && !is_active => Err(ReplayError::Old {
            series,
            seq,
            latest: latest.seq,
        }),
        Some(_) | None => Ok(()),
    }
}
