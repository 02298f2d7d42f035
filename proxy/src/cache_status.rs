//! The `Cache-Status` field: how this cache handled a request ([RFC 9211]).
//!
//! One value is built per answer and appended behind what caches nearer to the origin said. We also
//! put it on answers that we generate ourselves (errors, refusals): off-spec (§2 says SHOULD NOT), because an operator asks first
//! of all why something was *not* served.
//!
//! [RFC 9211]: https://www.rfc-editor.org/rfc/rfc9211

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use jiff::SignedDuration;

use crate::{
    key::push_escaped,
    policy::{Decision, MissReason, ValidationReason},
};

/// The field's name.
pub const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// The name by which this cache calls itself, a token.
pub const CACHE_NAME: &str = "kato";

/// Why a request went to the origin (§2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forward {
    /// The cache was told or configured to stand aside.
    Bypass,
    /// The method's semantics require it.
    Method,
    /// Nothing is stored under the URI.
    UriMiss,
    /// Something is stored under the URI, but for other selecting fields.
    VaryMiss,
    /// Something would be usable, but the request's own directives refuse it.
    Request,
    /// The stored response is stale.
    Stale,
    /// Only part of the representation is stored.
    Partial,
}

impl Forward {
    /// The reason that goes with a decision; `None` where the stored response is served.
    pub fn of(decision: &Decision) -> Option<Self> {
        match decision {
            Decision::Fresh(_) | Decision::StaleServable { .. } | Decision::GatewayTimeout => None,
            Decision::Miss(MissReason::Uri) => Some(Self::UriMiss),
            Decision::Miss(MissReason::Vary) => Some(Self::VaryMiss),
            Decision::Bypass(_) => Some(Self::Method),
            Decision::MustValidate { reason, .. } => Some(match reason {
                ValidationReason::RequestNoCache
                | ValidationReason::RequestMaxAge
                | ValidationReason::RequestMinFresh => Self::Request,
                ValidationReason::Stale
                | ValidationReason::Invalidated
                | ValidationReason::ResponseNoCache => Self::Stale,
            }),
        }
    }
}

impl fmt::Display for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bypass => "bypass",
            Self::Method => "method",
            Self::UriMiss => "uri-miss",
            Self::VaryMiss => "vary-miss",
            Self::Request => "request",
            Self::Stale => "stale",
            Self::Partial => "partial",
        })
    }
}

/// How the request was handled: `hit` and `fwd` exclude each other (§2.1), which the type makes so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Hit,
    Forwarded {
        why: Forward,
        status: Option<StatusCode>,
        stored: bool,
        collapsed: bool,
    },
    /// Answered by this cache itself, from no stored response.
    Generated,
}

/// One member of the list. Display is its text, a Structured Fields item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheStatus {
    outcome: Outcome,
    ttl: Option<i64>,
    key: Option<String>,
    detail: Option<String>,
}

impl CacheStatus {
    /// Served from the store without asking the origin.
    pub const fn hit() -> Self {
        Self::new(Outcome::Hit)
    }

    /// Asked the origin, for this reason.
    pub const fn forwarded(why: Forward) -> Self {
        Self::new(Outcome::Forwarded {
            why,
            status: None,
            stored: false,
            collapsed: false,
        })
    }

    /// Answered by the cache itself: an error or a refusal. Give it a [`CacheStatus::detail`].
    pub const fn generated() -> Self {
        Self::new(Outcome::Generated)
    }

    const fn new(outcome: Outcome) -> Self {
        Self {
            outcome,
            ttl: None,
            key: None,
            detail: None,
        }
    }

    /// Freshness left when the response was sent, in seconds; negative when stale (§2.4).
    #[must_use]
    pub fn ttl(mut self, ttl: SignedDuration) -> Self {
        self.ttl = Some(ttl.as_secs());
        self
    }

    /// The status code that the origin answered with, where it differs from the one sent (§2.3). Only after
    /// [`CacheStatus::forwarded`]; elsewhere without effect.
    #[must_use]
    pub fn fwd_status(mut self, answered: StatusCode) -> Self {
        if let Outcome::Forwarded { status, .. } = &mut self.outcome {
            *status = Some(answered);
        }
        self
    }

    /// Says whether the origin's response was stored (§2.5). Only after [`CacheStatus::forwarded`].
    #[must_use]
    pub fn stored(mut self, is_stored: bool) -> Self {
        if let Outcome::Forwarded { stored, .. } = &mut self.outcome {
            *stored = is_stored;
        }
        self
    }

    /// Says that the cache stood aside, whatever the reason to forward was. Only after [`CacheStatus::forwarded`];
    /// elsewhere without effect.
    #[must_use]
    pub fn bypassed(mut self) -> Self {
        if let Outcome::Forwarded { why, .. } = &mut self.outcome {
            *why = Forward::Bypass;
        }
        self
    }

    /// Says whether the request joined another one's fetch (§2.6). Only after [`CacheStatus::forwarded`].
    #[must_use]
    pub fn collapsed(mut self, is_collapsed: bool) -> Self {
        if let Outcome::Forwarded { collapsed, .. } = &mut self.outcome {
            *collapsed = is_collapsed;
        }
        self
    }

    /// The cache key, as text (§2.7). Percent-encoded where it is not printable ASCII.
    #[must_use]
    pub fn key(mut self, key: impl fmt::Display) -> Self {
        self.key = Some(key.to_string());
        self
    }

    /// A note for people (§2.8): a token where it is one, else a string.
    #[must_use]
    pub fn detail(mut self, detail: impl fmt::Display) -> Self {
        self.detail = Some(detail.to_string());
        self
    }

    /// Appends this member behind those of caches nearer to the origin.
    ///
    /// As a field line of its own: a broken value from upstream cannot take ours with it.
    pub fn append_to(&self, headers: &mut HeaderMap) {
        if let Ok(value) = HeaderValue::try_from(self.to_string()) {
            headers.append(CACHE_STATUS, value);
        }
    }
}

impl fmt::Display for CacheStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(CACHE_NAME)?;
        match self.outcome {
            Outcome::Hit => f.write_str("; hit")?,
            Outcome::Generated => {}
            Outcome::Forwarded {
                why,
                status,
                stored,
                collapsed,
            } => {
                write!(f, "; fwd={why}")?;
                if let Some(status) = status {
                    write!(f, "; fwd-status={}", status.as_u16())?;
                }
                if stored {
                    f.write_str("; stored")?;
                }
                if collapsed {
                    f.write_str("; collapsed")?;
                }
            }
        }
        if let Some(ttl) = self.ttl {
            // RFC 8941 §3.3.1: at most 15 digits.
            write!(
                f,
                "; ttl={}",
                ttl.clamp(-999_999_999_999_999, 999_999_999_999_999)
            )?;
        }
        if let Some(key) = &self.key {
            write!(f, "; key={}", sf_string(key))?;
        }
        match &self.detail {
            Some(detail) if is_token(detail) => write!(f, "; detail={detail}"),
            Some(detail) => write!(f, "; detail={}", sf_string(detail)),
            None => Ok(()),
        }
    }
}

/// A string by [RFC 8941 §3.3.3](https://www.rfc-editor.org/rfc/rfc8941#section-3.3.3): printable ASCII, `"` and `\` escaped. Other bytes become `%XX`.
fn sf_string(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => out.extend(['\\', char::from(byte)]),
            b' '..=b'~' => out.push(char::from(byte)),
            _ => push_escaped(&mut out, byte),
        }
    }
    out.push('"');
    out
}

/// A token by RFC 8941 §3.3.4.
fn is_token(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '*')
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc9211_s2_members_are_written_as_the_examples_show() {
        let seconds = SignedDuration::from_secs;
        let table = [
            (CacheStatus::hit().ttl(seconds(376)), "kato; hit; ttl=376"),
            (CacheStatus::hit().ttl(seconds(-412)), "kato; hit; ttl=-412"),
            (
                CacheStatus::forwarded(Forward::UriMiss)
                    .collapsed(true)
                    .stored(true),
                "kato; fwd=uri-miss; stored; collapsed",
            ),
            (
                CacheStatus::forwarded(Forward::Stale).fwd_status(StatusCode::NOT_MODIFIED),
                "kato; fwd=stale; fwd-status=304",
            ),
            (
                CacheStatus::forwarded(Forward::Bypass).detail("enospc"),
                "kato; fwd=bypass; detail=enospc",
            ),
            (
                CacheStatus::generated().detail("host not allowed"),
                "kato; detail=\"host not allowed\"",
            ),
        ];
        for (status, text) in table {
            assert_eq!(status.to_string(), text);
        }
    }

    #[test]
    fn rfc8941_s3_3_3_strings_are_quoted_and_escaped() {
        let status = CacheStatus::hit().key("GET http://h/\"a\\b\"\u{e9}\n");
        assert_eq!(
            status.to_string(),
            r#"kato; hit; key="GET http://h/\"a\\b\"%C3%A9%0A""#
        );
        let mut map = HeaderMap::new();
        status.append_to(&mut map);
        assert_eq!(map.len(), 1);
    }

    #[test]
    fn rfc9211_s2_a_hit_says_nothing_about_forwarding() {
        let status = CacheStatus::hit()
            .stored(true)
            .collapsed(true)
            .fwd_status(StatusCode::OK);
        assert_eq!(status.to_string(), "kato; hit");
    }

    #[test]
    fn rfc9211_s2_our_member_comes_after_those_from_upstream() {
        let mut map = HeaderMap::new();
        map.append(
            CACHE_STATUS,
            HeaderValue::from_static("OriginCache; hit; ttl=1100"),
        );
        CacheStatus::forwarded(Forward::UriMiss).append_to(&mut map);
        let lines: Vec<_> = map
            .get_all(CACHE_STATUS)
            .iter()
            .map(|line| line.to_str().unwrap())
            .collect();
        assert_eq!(lines, ["OriginCache; hit; ttl=1100", "kato; fwd=uri-miss"]);
    }
}
