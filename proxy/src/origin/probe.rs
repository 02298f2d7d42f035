//! One request of `doctor`, as a client of ours would send it: no proxy of the environment, no redirect followed, an end soon.

use std::time::Duration;

use http::{HeaderMap, StatusCode, header};
use kato_shared::chain::Chain;
use url::Url;

/// Long beside a proxy that has to ask an origin, short beside somebody who waits for a diagnosis.
const PATIENCE: Duration = Duration::from_secs(15);
/// The most bytes of an answer that are looked at.
const MOST_BYTES: usize = 1 << 20;

/// Sends requests.
#[derive(Debug, Clone)]
pub struct Prober(reqwest::Client);

/// An answer.
#[derive(Debug, Clone)]
pub struct Probed {
    /// Its status code.
    pub status: StatusCode,
    /// Its fields.
    pub headers: HeaderMap,
    /// Its content, of which a large one is cut off.
    pub body: Vec<u8>,
}

impl Prober {
    /// Sends requests with the authorities that this machine trusts.
    ///
    /// # Errors
    /// A text for the user when TLS cannot be set up.
    pub fn new() -> Result<Self, String> {
        // rustls is asked for a provider even where no TLS is spoken.
        let _already_installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let builder = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(PATIENCE);
        builder
            .build()
            .map(Self)
            .map_err(|error| Chain(&error).to_string())
    }

    /// GETs `url`; `accept` says in which form.
    ///
    /// # Errors
    /// A text for the user when there is no answer.
    pub async fn get(&self, url: &Url, accept: &str) -> Result<Probed, String> {
        let said = |error: reqwest::Error| Chain(&error.without_url()).to_string();
        let request = self.0.get(url.clone()).header(header::ACCEPT, accept);
        let mut response = request.send().await.map_err(said)?;
        let (status, headers) = (response.status(), response.headers().clone());
        let mut body = Vec::new();
        while body.len() < MOST_BYTES
            && let Some(bytes) = response.chunk().await.map_err(said)?
        {
            body.extend_from_slice(&bytes);
        }
        Ok(Probed {
            status,
            headers,
            body,
        })
    }
}
