//! The one HTTP client.

use std::time::Duration;

use super::{FetchError, Route, pace::Floor};

/// How long silence and slowness are borne. There is no limit on a whole download.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For a connection, TLS included.
    pub connect: Duration,
    /// For a whole head, and for the next byte of a body.
    pub read: Duration,
    /// How slow a body may come.
    pub floor: Floor,
    /// For a whole document of metadata, with all attempts.
    pub document: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            // Three SYN retransmissions (1 + 2 + 4 s) have passed by then.
            connect: Duration::from_secs(10),
            // Longer than the cache bears a silent upstream, so that its explanation arrives before we hang up.
            read: Duration::from_secs(30),
            // An analogue modem is faster.
            floor: Floor::new(1024, Duration::from_secs(60)),
            // The largest document (16 MiB) over half a megabit per second.
            document: Duration::from_secs(300),
        }
    }
}

/// A client for `route`. `reqwest` reads the proxy variables of the environment itself, here and nowhere else.
pub(super) fn build(route: &Route, timeouts: Timeouts) -> Result<reqwest::Client, FetchError> {
    let builder = reqwest::Client::builder()
        .user_agent(concat!("kato/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(timeouts.connect)
        .read_timeout(timeouts.read)
        // Redirects are followed by `super::redirect`, which knows where they led.
        .redirect(reqwest::redirect::Policy::none())
        // Retries are decided in one place, by us.
        .retry(reqwest::retry::never());
    let builder = match route {
        Route::Direct => builder,
        // The cache is on the cluster's own network; a proxy to the outside may not even know the way.
        Route::Cache(_) => builder.no_proxy(),
    };
    builder.build().map_err(|source| FetchError::Client { source })
}
