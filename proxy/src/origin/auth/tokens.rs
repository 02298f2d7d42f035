//! The tokens at hand, by what they are for.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::HeaderValue;
use serde::Deserialize;
use tokio::time::Instant;

use super::{Slot, challenge::Bearer};

/// "If omitted, this defaults to 60 seconds" (distribution specification, `expires_in`).
const DEFAULT_LIFETIME: u64 = 60;
/// The longest that is believed: nothing is gained by more.
const MAX_LIFETIME: u64 = 24 * 3600;
/// The most tokens kept; one more and those that nobody waits for are forgotten.
const MAX_TOKENS: usize = 4096;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Tokens(Mutex<HashMap<Bearer, Slot>>);

/// What is known about one scope.
#[derive(Debug)]
pub(super) enum Held {
    /// A token.
    Token(Token),
    /// There is none for us.
    Refused {
        /// Until then it is not asked for again.
        until: Instant,
    },
}

/// A token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    /// `Bearer …`, marked as sensitive.
    pub(super) value: HeaderValue,
    /// When it is used no more: a tenth of its time, or a few seconds, before its end.
    pub(super) until: Instant,
}

#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

impl Token {
    /// The token in the answer of a token service that came at `now`.
    pub(super) fn read(body: &[u8], now: Instant) -> Option<Self> {
        let answer: Answer = serde_json::from_slice(body).ok()?;
        // "For compatibility with OAuth 2.0, we will also accept token under the name access_token".
        let text = answer
            .token
            .or(answer.access_token)
            .filter(|text| !text.is_empty())?;
        let mut value = HeaderValue::try_from(format!("Bearer {text}")).ok()?;
        value.set_sensitive(true);
        let lifetime = Duration::from_secs(answer.expires_in.unwrap_or(DEFAULT_LIFETIME).min(MAX_LIFETIME));
        let skew = (lifetime / 10).max(Duration::from_secs(5)).min(lifetime / 2);
        Some(Self {
            value,
            until: now + lifetime.saturating_sub(skew),
        })
    }
}

impl Tokens {
    /// The place of the token for `bearer`.
    pub(super) fn slot(&self, bearer: &Bearer) -> Slot {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get(bearer) {
            return Arc::clone(slot);
        }
        if slots.len() >= MAX_TOKENS {
            slots.retain(|_, slot| Arc::strong_count(slot) > 1);
        }
        Arc::clone(slots.entry(bearer.clone()).or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p18_a_token_is_used_until_shortly_before_its_end() {
        let now = Instant::now();
        for (body, seconds) in [
            (r#"{"token":"t"}"#, 54),
            (r#"{"token":"t","expires_in":300}"#, 270),
            (r#"{"access_token":"t","expires_in":20}"#, 15),
            (r#"{"token":"t","expires_in":4}"#, 2),
            (r#"{"token":"t","expires_in":9999999}"#, 77_760),
        ] {
            let token = Token::read(body.as_bytes(), now).unwrap();
            assert_eq!(token.until - now, Duration::from_secs(seconds), "{body}");
            assert!(token.value.is_sensitive() && token.value == "Bearer t");
        }
        for useless in ["", "{}", r#"{"token":""}"#, r#"{"token":"a\nb"}"#] {
            assert_eq!(Token::read(useless.as_bytes(), now), None, "{useless}");
        }
    }
}
