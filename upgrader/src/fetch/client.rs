//! The one HTTP client.

use std::time::Duration;

use super::{FetchError, Route};

/// How long silence is borne. There is no limit on a whole download.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For a connection, TLS included.
    pub connect: Duration,
    /// For the next byte, of the head or of the body.
    pub read: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            // Three SYN retransmissions (1 + 2 + 4 s) have passed by then.
            connect: Duration::from_secs(10),
            // Longer than the cache bears a silent upstream, so that its explanation arrives before we hang up.
            read: Duration::from_secs(30),
        }
    }
}

/// More than a load balancer and a mirror selector need; a loop ends here.
const MAX_REDIRECTS: usize = 5;

/// A client for `route`. `reqwest` reads the proxy variables of the environment itself, here and nowhere else.
pub(super) fn build(route: &Route, timeouts: Timeouts) -> Result<reqwest::Client, FetchError> {
    let builder = reqwest::Client::builder()
        .user_agent(concat!("kato/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(timeouts.connect)
        .read_timeout(timeouts.read)
        .redirect(reqwest::redirect::Policy::limited(MAX_REDIRECTS))
        // Retries are decided in one place, by us.
        .retry(reqwest::retry::never());
    let builder = match route {
        Route::Direct => builder,
        // The cache is on the cluster's own network; a proxy to the outside may not even know the way.
        Route::Cache(_) => builder.no_proxy(),
    };
    builder.build().map_err(|source| FetchError::Client { source })
}
