//! Whether hosts can be reached, asked before anything depends on it: from this node, or through the cache.
//!
//! Any answer of the host itself will do, also "not found": that it is there is the question. What a cache says about itself
//! (it may not ask that host, the host is silent) is no such answer.

use url::Url;

use super::{FetchError, Fetcher, exchange};

/// See [`Fetcher::reach`].
pub(super) async fn run(fetcher: &Fetcher, url: &Url) -> Result<(), FetchError> {
    let target = fetcher.route.resolve(url);
    let answer = fetcher
        .client
        .get(target.clone())
        .send()
        .await
        .map_err(|source| exchange::no_answer(fetcher, &target, source).error)?;
    if answer.status().is_success() {
        return Ok(());
    }
    let error = exchange::refused(fetcher, &target, answer).await.error;
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
