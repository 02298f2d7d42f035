//! A floor under the speed of a file: a server that drips a byte a second never falls silent, and would hold a run and its
//! lock for weeks.
//!
//! Flow: each wait for a piece is counted → when a whole window has been waited through, the bytes that came in it are
//! compared with the floor → too few cut the connection off, so that the next one (another mirror, another path) goes on from
//! there → after [`MAX_SLOW`] windows in a row the file is given up.
//!
//! Deliberately absent: a limit on the whole time of a file; a large one over a thin line is no error. Only waiting is counted:
//! not the disk, not the pauses between attempts, and not the time until a head comes, which has a limit of its own.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout};

/// So many windows in a row below the floor are enough: with the defaults, three minutes.
const MAX_SLOW: u32 = 3;

/// How slow a body may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Floor {
    /// Bytes that must come within a window; 0 switches the floor off.
    pub bytes: u64,
    /// How long is looked at; not zero.
    pub window: Duration,
}

impl Floor {
    /// `speed` bytes per second, looked at over `window`.
    pub const fn new(speed: u64, window: Duration) -> Self {
        Self {
            bytes: speed.saturating_mul(window.as_secs()),
            window,
        }
    }
}

/// Why there is no next piece.
#[derive(Debug)]
pub(super) enum Broken {
    /// The connection broke off or fell silent.
    Line(reqwest::Error),
    /// What came in the last window is less than the floor.
    Slow {
        /// So many bytes came.
        received: u64,
        /// Whether asking again makes sense.
        again: bool,
    },
}

/// Watches over one file, however many connections it takes.
#[derive(Debug)]
pub(super) struct Pace {
    floor: Floor,
    waited: Duration,
    received: u64,
    slow: u32,
}

impl Pace {
    pub(super) const fn new(floor: Floor) -> Self {
        Self {
            floor,
            waited: Duration::ZERO,
            received: 0,
            slow: 0,
        }
    }

    /// The next piece of the body of `response`; `None` at its end.
    pub(super) async fn next(&mut self, response: &mut reqwest::Response) -> Result<Option<Bytes>, Broken> {
        if self.floor.bytes == 0 {
            return response.chunk().await.map_err(Broken::Line);
        }
        loop {
            let rest = self.floor.window.saturating_sub(self.waited);
            let began = Instant::now();
            let piece = timeout(rest, response.chunk()).await;
            self.waited += began.elapsed();
            if let Ok(piece) = piece {
                let length = piece.as_ref().ok().and_then(Option::as_ref).map_or(0, Bytes::len);
                self.received += length as u64;
                return piece.map_err(Broken::Line);
            }
            self.judge()?;
        }
    }

    /// The verdict at the end of a window; the next one begins.
    fn judge(&mut self) -> Result<(), Broken> {
        let received = std::mem::take(&mut self.received);
        self.waited = Duration::ZERO;
        if received >= self.floor.bytes {
            self.slow = 0;
            return Ok(());
        }
        self.slow += 1;
        Err(Broken::Slow {
            received,
            again: self.slow < MAX_SLOW,
        })
    }

    /// The floor, for the error.
    pub(super) const fn floor(&self) -> Floor {
        self.floor
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_slow_windows_in_a_row_are_the_end() {
        let mut pace = Pace::new(Floor::new(10, Duration::from_secs(2)));
        let mut window = |received| {
            pace.received = received;
            pace.judge().map_err(|broken| match broken {
                Broken::Slow { again, .. } => again,
                Broken::Line(error) => panic!("{error}"),
            })
        };
        assert_eq!(
            [window(20), window(19), window(0)],
            [Ok(()), Err(true), Err(true)]
        );
        // One good window, and the count begins again.
        assert_eq!([window(20), window(1), window(1)], [Ok(()), Err(true), Err(true)]);
        assert_eq!(window(1), Err(false));
    }
}
