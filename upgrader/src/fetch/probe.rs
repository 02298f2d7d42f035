//! Short questions to a cache or a platform nearby: is it there, what does it say of itself, what does it refuse. Never through a proxy.

use std::time::Duration;

use serde::de::DeserializeOwned;
use url::Url;

/// How long one answer may take; it comes from this machine or from its cluster.
const DEADLINE: Duration = Duration::from_secs(5);

/// A question without a good answer.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// Nobody answers.
    #[error("{url} does not answer")]
    Silent {
        /// What was asked for.
        url: Url,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// An answer that was not expected.
    #[error("{url} answers {status}, expected 200")]
    Status {
        /// What was asked for.
        url: Url,
        /// The status of the answer.
        status: u16,
    },
    /// A method that HTTP does not have.
    #[error("`{method}` is no method of HTTP")]
    Method {
        /// As it is written.
        method: String,
    },
    /// A document of another shape.
    #[error("the answer of {url} cannot be read")]
    Shape {
        /// What was asked for.
        url: Url,
        /// What does not fit.
        #[source]
        source: serde_json::Error,
    },
}

/// Whether `url` answers with status 200.
///
/// # Errors
/// [`ProbeError`] when it does not.
pub async fn answers(url: &Url) -> Result<(), ProbeError> {
    get(url).await.map(drop)
}

/// The JSON document at `url`.
///
/// # Errors
/// [`ProbeError`] when there is none, or one of another shape.
pub async fn json<T: DeserializeOwned>(url: &Url) -> Result<T, ProbeError> {
    let silent = |source| ProbeError::Silent {
        url: url.clone(),
        source,
    };
    let bytes = get(url).await?.bytes().await.map_err(silent)?;
    serde_json::from_slice(&bytes).map_err(|source| ProbeError::Shape {
        url: url.clone(),
        source,
    })
}

/// The status of the answer to a request with `method` and without a body; where the answer leads is not followed.
///
/// # Errors
/// [`ProbeError`] when there is no answer.
pub async fn status(method: &str, url: &Url) -> Result<u16, ProbeError> {
    let silent = |source| ProbeError::Silent {
        url: url.clone(),
        source,
    };
    let known =
        reqwest::Method::from_bytes(method.as_bytes()).map_err(|_not_a_token| ProbeError::Method {
            method: method.to_owned(),
        })?;
    let client = reqwest::Client::builder()
        .no_proxy()
        .timeout(DEADLINE)
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(silent)?;
    let answer = client.request(known, url.clone()).send().await.map_err(silent)?;
    Ok(answer.status().as_u16())
}

async fn get(url: &Url) -> Result<reqwest::Response, ProbeError> {
    let silent = |source| ProbeError::Silent {
        url: url.clone(),
        source,
    };
    let client = reqwest::Client::builder().no_proxy().timeout(DEADLINE).build();
    let response = client
        .map_err(silent)?
        .get(url.clone())
        .send()
        .await
        .map_err(silent)?;
    let status = response.status();
    if status == reqwest::StatusCode::OK {
        Ok(response)
    } else {
        Err(ProbeError::Status {
            url: url.clone(),
            status: status.as_u16(),
        })
    }
}
