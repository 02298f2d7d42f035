//! Requests that follow redirects, and remember whose word they followed: an answer of another server than the one that was
//! asked has another remedy.
//!
//! The HTTP client follows none by itself. Where a redirect leads needs no trust: what comes from there is verified like
//! anything else. Credentials in a URL stay with its server.

use http::{HeaderMap, Method, StatusCode, header};
use url::Url;

use super::{
    FetchError, Fetcher, error,
    exchange::{Failed, no_answer},
};

/// More than a load balancer and a mirror selector need.
const MAX_REDIRECTS: usize = 5;

/// An answer, and the URL that gave it.
#[derive(Debug)]
pub(super) struct Followed {
    pub(super) response: reqwest::Response,
    /// What was asked for.
    pub(super) asked: Url,
    /// Who answered, when it is not who was asked.
    pub(super) elsewhere: Option<Url>,
}

impl Followed {
    /// What was asked for and who answered, for people.
    pub(super) fn shown(&self) -> String {
        shown(&self.asked, self.elsewhere.as_ref())
    }
}

/// `asked`, and where its server sent us.
pub(super) fn shown(asked: &Url, elsewhere: Option<&Url>) -> String {
    let asked = error::shown(asked);
    match elsewhere {
        Some(url) => format!("{asked} (redirected to {})", error::shown(url)),
        None => asked,
    }
}

/// Asks for `url`, and wherever it leads.
pub(super) async fn follow(
    fetcher: &Fetcher,
    method: Method,
    url: &Url,
    headers: &HeaderMap,
) -> Result<Followed, Failed> {
    let mut seen = vec![url.clone()];
    loop {
        let current = seen.last().unwrap_or(url);
        let elsewhere = (seen.len() > 1).then(|| current.clone());
        let request = fetcher.client.request(method.clone(), current.clone());
        let response = request
            .headers(headers.clone())
            .send()
            .await
            .map_err(|source| no_answer(fetcher, url, elsewhere.as_ref(), source))?;
        let Some(location) = location(&response) else {
            return Ok(Followed {
                response,
                asked: url.clone(),
                elsewhere,
            });
        };
        let next = current.join(&location).ok();
        let next = next.filter(|next| matches!(next.scheme(), "http" | "https"));
        let why = match &next {
            None => Some("which is no address that can be asked"),
            Some(next) if seen.contains(next) => Some("where it came from, in a circle"),
            Some(_) if seen.len() > MAX_REDIRECTS => Some("and on and on"),
            Some(_) => None,
        };
        match (next, why) {
            (Some(next), None) => seen.push(next),
            (next, why) => {
                return Err(FetchError::Redirects {
                    url: error::shown(url),
                    to: next.map_or(location, |next| error::shown(&next)),
                    why: why.unwrap_or_default(),
                }
                .into());
            }
        }
    }
}

/// Where an answer leads: "the user agent MAY automatically redirect its request" (RFC 9110 §15.4); 300 and 304 leave no choice
/// to a program.
fn location(response: &reqwest::Response) -> Option<String> {
    let leads = matches!(
        response.status(),
        StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::SEE_OTHER
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT
    );
    let field = response.headers().get(header::LOCATION).filter(|_| leads)?;
    Some(String::from_utf8_lossy(field.as_bytes()).into_owned())
}
