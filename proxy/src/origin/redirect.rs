//! Redirects, followed by hand so that each hop is judged.
//!
//! What comes in the end is bound to the URL asked first: it is stored under that one, and taken up again from there. The URL of
//! a hop, which often carries a signature, is not stored, and logged without the values of its query.

use std::time::Duration;

use http::{HeaderMap, header};
use kato_shared::redact;
use tokio::time::timeout;
use url::Url;

use super::{OriginError, OriginRequest, flow::Arriving};

/// Redirects followed for one request; browsers stop at 20, caches at 5 to 10.
pub(super) const MAX_REDIRECTS: usize = 10;

/// The page that comes with a redirect is read up to this size, so that its connection can be used again.
const MAX_PAGE: usize = 16 << 10;
/// And waited for this long.
const PAGE_PATIENCE: Duration = Duration::from_millis(200);

/// Where a response with `status` and `headers` redirects a safe request for `url` to, if it does.
pub(super) fn target(
    request: &OriginRequest,
    url: &Url,
    (status, headers): (http::StatusCode, &HeaderMap),
) -> Result<Option<Url>, OriginError> {
    let is_redirect = matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308);
    let location = headers.get(header::LOCATION);
    let Some(location) = location.filter(|_| is_redirect && request.method.is_safe()) else {
        return Ok(None);
    };
    let bad = |location: String| OriginError::BadRedirect {
        url: redact::url(url),
        location,
    };
    let text = String::from_utf8_lossy(location.as_bytes());
    let next = url
        .join(&text)
        .map_err(|_not_a_url| bad("something that is no URL".into()))?;
    if matches!(next.scheme(), "http" | "https") {
        Ok(Some(next))
    } else {
        Err(bad(redact::url(&next)))
    }
}

/// "The user agent … MUST NOT" hand credentials for one origin to another (RFC 9110 §15.4).
pub(super) fn drop_credentials(headers: &mut HeaderMap) {
    for secret in [header::AUTHORIZATION, header::COOKIE, header::PROXY_AUTHORIZATION] {
        headers.remove(secret);
    }
}

/// Reads the page that came with a redirect, where it is small and at hand.
pub(super) async fn finish(page: Arriving) {
    // Over HTTP/2 the connection is for others all the same.
    if !matches!(page, Arriving::Hyper(_, None)) {
        let _read_or_closed = timeout(PAGE_PATIENCE, page.whole(MAX_PAGE)).await;
    }
}
