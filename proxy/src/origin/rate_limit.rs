//! What a registry says about how often it may still be asked (`RateLimit-Limit: 100;w=21600`, `RateLimit-Remaining: 76;w=21600`).
//!
//! Registries count manifests, and answer 429 when there is nothing left. With nothing left, whatever a stored response can stand in for is
//! not asked for: see [`super::health`]. Pure.

use std::time::Duration;

use http::{HeaderMap, HeaderName};
use url::Url;

const LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("ratelimit-reset");

/// Where nothing says when there is more: often enough to see that there is.
const UNTOLD: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RateLimit {
    /// Requests in a window.
    pub(super) limit: Option<u64>,
    /// Of these, how many are left.
    pub(super) remaining: u64,
    /// With none left: when there is one more, about.
    pub(super) wait: Duration,
}

impl RateLimit {
    /// What the fields of an answer say.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let (remaining, window) = quota(headers, &REMAINING)?;
        let limit = quota(headers, &LIMIT);
        let window = window.or(limit.and_then(|(_, window)| window));
        let limit = limit.map(|(limit, _)| limit);
        let reset = quota(headers, &RESET).map(|(seconds, _)| seconds);
        // Windows slide: one place comes back after another.
        let one_more = || Some(window? / limit.filter(|limit| *limit > 0)?);
        Some(Self {
            limit,
            remaining,
            wait: reset.or_else(one_more).map_or(UNTOLD, Duration::from_secs),
        })
    }
}

/// Whether requests for `url` are counted.
pub(super) fn is_counted(url: &Url) -> bool {
    url.path().contains("/manifests/")
}

/// The number in a field, and the seconds of its window.
fn quota(headers: &HeaderMap, name: &HeaderName) -> Option<(u64, Option<u64>)> {
    let mut parts = headers.get(name)?.to_str().ok()?.split(';').map(str::trim);
    let number = parts.next()?.parse().ok()?;
    let window = parts.find_map(|part| part.strip_prefix("w=")?.parse().ok());
    Some((number, window))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn read(fields: &[(HeaderName, &'static str)]) -> Option<(Option<u64>, u64, u64)> {
        let fields = fields.iter().cloned();
        let headers = fields.map(|(name, value)| (name, HeaderValue::from_static(value)));
        let read = RateLimit::of(&headers.collect())?;
        Some((read.limit, read.remaining, read.wait.as_secs()))
    }

    #[test]
    fn p11_what_is_left_and_when_there_is_more_is_read_as_registries_write_it() {
        for (fields, expected) in [
            (&[][..], None),
            (&[(LIMIT, "100;w=21600")], None),
            (&[(REMAINING, "many")], None),
            (
                &[(LIMIT, "100;w=21600"), (REMAINING, "76;w=21600")],
                Some((Some(100), 76, 216)),
            ),
            (&[(REMAINING, "0")], Some((None, 0, 60))),
            (&[(LIMIT, "0;w=60"), (REMAINING, "0")], Some((Some(0), 0, 60))),
            (&[(REMAINING, "0"), (RESET, "30")], Some((None, 0, 30))),
        ] {
            assert_eq!(read(fields), expected, "{fields:?}");
        }
    }
}
