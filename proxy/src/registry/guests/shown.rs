//! Name and secret, or a token, as a request shows them (RFC 7617, RFC 6750).

use base64::prelude::{BASE64_STANDARD, Engine as _};
use http::{HeaderMap, HeaderValue, header};

/// What a request shows.
pub(super) enum Shown {
    Basic(String, Vec<u8>),
    Bearer(String),
}

/// The line that shows `name` and `secret`.
pub(crate) fn basic(name: &str, secret: &str) -> Option<HeaderValue> {
    let pair = BASE64_STANDARD.encode(format!("{name}:{secret}"));
    let mut line = HeaderValue::try_from(format!("Basic {pair}")).ok()?;
    line.set_sensitive(true);
    Some(line)
}

impl Shown {
    /// The one pair or token in `headers`; two of them are none.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut lines = headers.get_all(header::AUTHORIZATION).iter();
        let (line, None) = (lines.next()?.to_str().ok()?, lines.next()) else {
            return None;
        };
        let (scheme, value) = line.trim().split_once(' ')?;
        if scheme.eq_ignore_ascii_case("bearer") {
            return Some(Self::Bearer(value.trim().to_owned()));
        }
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let pair = BASE64_STANDARD.decode(value.trim()).ok()?;
        let colon = pair.iter().position(|byte| *byte == b':')?;
        let name = String::from_utf8(pair[..colon].to_vec()).ok()?;
        Some(Self::Basic(name, pair[colon + 1..].to_vec()))
    }
}
