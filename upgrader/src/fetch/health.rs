//! Asks a service on this node for its status, for the health checks of a release, or for a document such as the counters of the cache.

use std::time::Duration;

use super::{FetchError, error::shown};

/// The status of the answer to `GET url`, without any proxy and without following redirects.
///
/// # Errors
/// [`FetchError::Unreachable`] when nothing answers within `limit`; [`FetchError::Client`] for a URL that is none.
pub async fn status(url: &str, limit: Duration) -> Result<u16, FetchError> {
    Ok(get(url, limit).await?.status().as_u16())
}

/// The body of the answer to `GET url`, asked as for [`status`].
///
/// # Errors
/// As [`status`], also for an answer that is no success.
pub async fn body(url: &str, limit: Duration) -> Result<Vec<u8>, FetchError> {
    let answer = get(url, limit).await?.error_for_status();
    let body = answer.map_err(|source| unreachable(url, source))?.bytes().await;
    body.map(Vec::from).map_err(|source| unreachable(url, source))
}

async fn get(url: &str, limit: Duration) -> Result<reqwest::Response, FetchError> {
    let client = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(limit)
        .build()
        .map_err(|source| FetchError::Client { source })?;
    let request = client
        .get(url)
        .build()
        .map_err(|source| FetchError::Client { source })?;
    let subject = shown(request.url());
    let answer = client.execute(request).await;
    answer.map_err(|source| unreachable(&subject, source))
}

fn unreachable(url: &str, source: reqwest::Error) -> FetchError {
    FetchError::Unreachable {
        peer: "the service".into(),
        is_cache: false,
        url: url.to_owned(),
        elsewhere: None,
        source: source.without_url(),
    }
}
