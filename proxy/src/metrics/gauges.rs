//! What is not counted but looked at when the page is asked for: the store, the origins, the process.

use std::fs;

use crate::store::{LedgerFigures, ScrubFigures, Totals};

/// Readings of the moment.
#[derive(Debug, Clone, Default)]
pub struct Gauges {
    /// What is stored.
    pub totals: Totals,
    /// What the eviction knows of it.
    pub ledger: LedgerFigures,
    /// What the scrub has done.
    pub scrub: ScrubFigures,
    /// Damaged contents that are kept to be looked at.
    pub quarantined: usize,
    /// Responses on their way to the disk.
    pub queued: u64,
    /// Mirrors of upstreams, by the upstream's name and the mirror's URL, and whether the last request brought no answer.
    pub mirrors: Vec<(String, String, bool)>,
    /// Whether the store takes new content.
    pub is_storing: bool,
}

/// Resident memory of this process in bytes, and its open descriptors; `None` where the system does not tell.
pub(super) fn process() -> (Option<u64>, Option<u64>) {
    let resident = fs::read_to_string("/proc/self/status").ok().and_then(|status| {
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().ok()?;
        Some(kilobytes * 1024)
    });
    let descriptors = fs::read_dir("/proc/self/fd")
        .ok()
        .map(|folder| folder.count() as u64);
    (resident, descriptors)
}
