//! The clocks: intervals, the process's CPU time, and the wall clock for `Date`.

use std::time::{Duration, Instant, SystemTime};

use rustix::time::{ClockId, clock_gettime};

/// The monotonic clock.
#[expect(
    clippy::disallowed_methods,
    reason = "measuring real intervals is what this program is for"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// The wall clock.
#[expect(clippy::disallowed_methods, reason = "an origin server dates its responses")]
pub(crate) fn wall() -> SystemTime {
    SystemTime::now()
}

/// User plus system CPU time of this process.
pub(crate) fn cpu() -> Duration {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    let seconds = u64::try_from(spent.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(spent.tv_nsec).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_nanos(nanos)
}
