//! Asks a service on this node for its status: for the health checks of a release.

use std::time::Duration;

use super::{FetchError, error::shown};

/// The status of the answer to `GET url`, without any proxy and without following redirects.
///
/// # Errors
/// [`FetchError::Unreachable`] when nothing answers within `limit`; [`FetchError::Client`] for a URL that is none.
pub async fn status(url: &str, limit: Duration) -> Result<u16, FetchError> {
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
    client
        .execute(request)
        .await
        .map(|response| response.status().as_u16())
        .map_err(|source| FetchError::Unreachable {
            peer: "the service".into(),
            is_cache: false,
            url: subject,
            elsewhere: None,
            source: source.without_url(),
        })
}
