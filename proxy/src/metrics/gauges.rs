//! What is not counted but looked at when the page is asked for: the store, the origins, the process.

use std::fs;

/// Readings of the moment.
#[derive(Debug, Clone, Default)]
pub struct Gauges {
    /// Cache keys with a stored response.
    pub responses: u64,
    /// Bytes of distinct content.
    pub bytes: u64,
    /// Requests whose answers are under way.
    pub in_flight: u64,
    /// Mirrors of upstreams, by the upstream's name and the mirror's URL, and whether the last request brought no answer.
    pub mirrors: Vec<(String, String, bool)>,
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
