//! The client side of the admin API, for the verbs of the command line.

use std::net::SocketAddr;

use http::Method;
use kato_shared::chain::Chain;
use url::Url;

/// Asks the admin API at `address`; returns the body of a 2xx answer.
///
/// # Errors
/// A text for the user: the proxy does not answer, or says no.
pub fn admin_call(
    address: SocketAddr,
    method: &Method,
    path: &str,
    query: &[(&str, &str)],
) -> Result<Vec<u8>, String> {
    // rustls is asked for a provider even where no TLS is spoken.
    let _already_installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("no event loop: {error}"))?;
    let mut url =
        Url::parse(&format!("http://{address}{path}")).map_err(|error| format!("{path}: {error}"))?;
    if !query.is_empty() {
        url.query_pairs_mut().extend_pairs(query);
    }
    runtime.block_on(async {
        let silent = |error: reqwest::Error| {
            format!(
                "the proxy's admin address {address} does not answer: {}\nhint: is `kato-proxy serve` running? name its admin address with --admin",
                Chain(&error.without_url())
            )
        };
        let client = reqwest::Client::builder().no_proxy().build().map_err(silent)?;
        let response = client.request(method.clone(), url).send().await.map_err(silent)?;
        let status = response.status();
        let body = response.bytes().await.map_err(silent)?;
        if status.is_success() {
            Ok(body.to_vec())
        } else {
            Err(format!("the proxy answered {status}: {}", String::from_utf8_lossy(&body)))
        }
    })
}
