//! Whether hosts can be reached, asked before anything depends on it: from this node, or through the cache.
//!
//! Any answer of the host itself will do, also "not found": that it is there is the question. What a cache says about itself
//! (it may not ask that host, the host is silent) is no such answer.

use http::{HeaderMap, Method};
use url::Url;

use super::{FetchError, Fetcher, exchange, redirect};

/// See [`Fetcher::reach`].
pub(super) async fn run(fetcher: &Fetcher, url: &Url) -> Result<(), FetchError> {
    let target = fetcher.route.resolve(url);
    let asked = redirect::follow(fetcher, Method::GET, &target, &HeaderMap::new()).await;
    let answer = match asked.map_err(|failed| failed.error) {
        // Whoever sends us around is there.
        Err(FetchError::Redirects { .. }) => return Ok(()),
        other => other?,
    };
    if answer.response.status().is_success() {
        return Ok(());
    }
    let error = exchange::refused(fetcher, answer).await.error;
    let is_of_cache = matches!(
        error,
        FetchError::NotInCache { .. }
            | FetchError::Upstream { .. }
            // A problem document is the cache's own word.
            | FetchError::Status { detail: Some(_), .. }
    );
    if is_of_cache && fetcher.route.is_cache() {
        return Err(error);
    }
    Ok(())
}
