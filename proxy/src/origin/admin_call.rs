//! The client side of the admin API, for the verbs of the command line.

use std::{fmt, net::SocketAddr, path::PathBuf, str::FromStr};

use http::{HeaderValue, Method, StatusCode, header};
use kato_shared::{api::Problem, chain::Chain, secret::Secret};
use url::Url;

use crate::admin::GUARD;

/// Where a running proxy's admin listener is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminAddress {
    /// At an address.
    Tcp(SocketAddr),
    /// At a Unix socket.
    Unix(PathBuf),
}

impl FromStr for AdminAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:").filter(|path| !path.is_empty()) {
            return Ok(Self::Unix(PathBuf::from(path)));
        }
        text.parse()
            .map(Self::Tcp)
            .map_err(|_no_address| format!("expected ADDRESS:PORT or unix:/path, got `{text}`"))
    }
}

impl fmt::Display for AdminAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Why the API did not do what it was asked.
#[derive(Debug)]
pub enum AdminFailure {
    /// Nobody answers there.
    Silent(String),
    /// The proxy says no, and why.
    Refused(String),
}

/// Asks the admin API at `address`; returns the body of a 2xx answer.
///
/// # Errors
/// [`AdminFailure`], with a text for the user.
pub fn admin_call(
    (address, token): (&AdminAddress, Option<&Secret>),
    method: &Method,
    path: &str,
    query: &[(&str, &str)],
) -> Result<Vec<u8>, AdminFailure> {
    // rustls is asked for a provider even where no TLS is spoken.
    let _already_installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let silent = |cause: String| AdminFailure::Silent(cause);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| silent(format!("no event loop: {error}")))?;
    let host = match address {
        AdminAddress::Tcp(address) => address.to_string(),
        AdminAddress::Unix(_) => "localhost".to_owned(),
    };
    let mut url =
        Url::parse(&format!("http://{host}{path}")).map_err(|error| silent(format!("{path}: {error}")))?;
    if !query.is_empty() {
        url.query_pairs_mut().extend_pairs(query);
    }
    runtime.block_on(async {
        let failed = |error: reqwest::Error| {
            silent(format!(
                "the proxy's admin address {address} does not answer: {}\nhint: is `kato-proxy serve` running? name its admin address with --admin",
                Chain(&error.without_url())
            ))
        };
        let builder = reqwest::Client::builder().no_proxy();
        let builder = match address {
            AdminAddress::Tcp(_) => builder,
            AdminAddress::Unix(path) => builder.unix_socket(path.clone()),
        };
        let client = builder.build().map_err(failed)?;
        let mut request = client.request(method.clone(), url).header(GUARD, "1");
        if let Some(value) = token.and_then(bearer) {
            request = request.header(header::AUTHORIZATION, value);
        }
        let response = request.send().await.map_err(failed)?;
        let status = response.status();
        let body = response.bytes().await.map_err(failed)?;
        if status.is_success() {
            return Ok(body.to_vec());
        }
        Err(AdminFailure::Refused(refusal(address, status, &body)))
    })
}

fn bearer(token: &Secret) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_bytes(&[b"Bearer ", token.expose()].concat()).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// A refusal for people: what, and what to do next.
fn refusal(address: &AdminAddress, status: StatusCode, body: &[u8]) -> String {
    match serde_json::from_slice::<Problem>(body) {
        Ok(problem) => {
            let hint = problem
                .hint
                .map(|hint| format!("\nhint: {hint}"))
                .unwrap_or_default();
            format!("{}: {}{hint}", problem.title, problem.detail)
        }
        Err(_no_problem) => format!(
            "{address} answered {status}, which is not what a kato-proxy says\nhint: name the admin address of kato-proxy with --admin"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_socket_or_a_path() {
        for text in ["127.0.0.1:3181", "[::1]:3181", "unix:/run/kato/admin.sock"] {
            assert_eq!(text.parse::<AdminAddress>().unwrap().to_string(), text);
        }
        for text in ["", "unix:", "localhost:3181", "/run/kato/admin.sock"] {
            assert!(
                text.parse::<AdminAddress>().unwrap_err().contains("unix:/path"),
                "{text}"
            );
        }
    }
}
