//! Posts a small document to somebody who wants to know: for notifications.
//!
//! HTTPS trusts the machine's authorities, and those that it is given. The proxy variables of the environment hold. Redirects
//! are refused: a document goes to the address of the settings and nowhere else.

use std::time::Duration;

use http::HeaderMap;
use kato_shared::redact;
use url::Url;

use super::FetchError;

/// Posts documents. Clones share the connections.
#[derive(Debug, Clone)]
pub struct Poster(reqwest::Client);

impl Poster {
    /// A poster that gives each document `limit`, and trusts the authorities in `pem` beside the machine's.
    ///
    /// # Errors
    /// [`FetchError::Client`] when a certificate cannot be read, or TLS cannot be set up.
    pub fn new(limit: Duration, pem: Option<&[u8]>) -> Result<Self, FetchError> {
        let client = |source| FetchError::Client { source };
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("kato/", env!("CARGO_PKG_VERSION")))
            .timeout(limit)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never());
        if let Some(pem) = pem {
            let authorities = reqwest::Certificate::from_pem_bundle(pem).map_err(client)?;
            builder = builder.tls_certs_merge(authorities);
        }
        builder.build().map(Self).map_err(client)
    }

    /// Posts `body` to `url`; any 2xx is success, and what the answer says beside that is not read.
    ///
    /// # Errors
    /// [`FetchError::Unreachable`] when nobody answers in time, [`FetchError::Status`] for any other answer.
    ///
    /// # Cancel safety
    /// Dropping the future ends the request; the receiver may have got it.
    pub async fn post(&self, url: &Url, headers: HeaderMap, body: Vec<u8>) -> Result<(), FetchError> {
        let request = self.0.post(url.clone()).headers(headers).body(body);
        let answer = request.send().await.map_err(|source| FetchError::Unreachable {
            peer: format!("the receiver {}", url.host_str().unwrap_or_default()),
            is_cache: false,
            url: redact::receiver(url),
            elsewhere: None,
            source: source.without_url(),
        })?;
        if answer.status().is_success() {
            return Ok(());
        }
        Err(FetchError::Status {
            url: redact::receiver(url),
            status: answer.status().as_u16(),
            elsewhere: None,
            detail: None,
            advice: None,
        })
    }
}
