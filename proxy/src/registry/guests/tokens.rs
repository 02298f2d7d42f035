//! Tokens of our own: who got one, for which repositories, until when; signed with a key that this process has made.
//!
//! ```text
//! base64url({"sub":…,"mark":…,"exp":…,"may":[…],"list":…}) . base64url(HMAC-SHA-256)
//! ```
//!
//! Nobody but this process reads them, so they are of no standard's form: no algorithm is named in them that somebody could
//! change. The key lives as long as the process; after a restart clients are asked for name and secret again, which they do by
//! themselves. What a token says is a claim about the time when it was made: whether its user is still there, with the same
//! secret and rights, is looked up with every request.
//!
//! Deliberately absent: refresh tokens, and the OAuth form of the request (POST), for which clients fall back to GET.

use std::{sync::Arc, time::Duration};

use aws_lc_rs::hmac::{self, HMAC_SHA256};
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// Signs and knows its own signature again. Clones are the same key.
#[derive(Debug, Clone)]
pub(super) struct Key(Arc<hmac::Key>);

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Token {
    /// The user.
    #[serde(rename = "sub")]
    pub(super) user: String,
    /// The mark of its line in the file (see `users`).
    pub(super) mark: String,
    /// The end, in seconds since 1970.
    #[serde(rename = "exp")]
    pub(super) until: i64,
    /// The repositories, as `UPSTREAM/REPOSITORY`.
    pub(super) may: Vec<String>,
    /// Whether the lists of repositories may be read.
    pub(super) list: bool,
}

/// The random bytes of this process cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system gives no random bytes for a key")]
pub(crate) struct NoKey;

impl Key {
    /// A new one.
    ///
    /// # Errors
    /// [`NoKey`].
    pub(super) fn new() -> Result<Self, NoKey> {
        let mut secret = [0; 32];
        aws_lc_rs::rand::fill(&mut secret).map_err(|_unspecified| NoKey)?;
        Ok(Self(Arc::new(hmac::Key::new(HMAC_SHA256, &secret))))
    }

    /// The text of `token`.
    pub(super) fn sign(&self, token: &Token) -> String {
        // Strings, numbers and lists of them can always be written.
        let said = BASE64_URL_SAFE_NO_PAD.encode(serde_json::to_vec(token).unwrap_or_default());
        let tag = hmac::sign(&self.0, said.as_bytes());
        format!("{said}.{}", BASE64_URL_SAFE_NO_PAD.encode(tag))
    }

    /// The token that `text` is, if this key has signed it and it has not ended at `now`.
    pub(super) fn read(&self, text: &str, now: Timestamp) -> Option<Token> {
        let (said, tag) = text.split_once('.')?;
        let tag = BASE64_URL_SAFE_NO_PAD.decode(tag).ok()?;
        hmac::verify(&self.0, said.as_bytes(), &tag).ok()?;
        let token: Token = serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(said).ok()?).ok()?;
        (now.as_second() < token.until).then_some(token)
    }

    /// A mark that only who has the key can make: of what was proved once, so that it need not be proved again.
    pub(super) fn seal(&self, parts: &[&[u8]]) -> Seal {
        let mut context = hmac::Context::with_key(&self.0);
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        Seal(context.sign())
    }
}

/// See [`Key::seal`].
#[derive(Debug, Clone)]
pub(super) struct Seal(hmac::Tag);

impl Seal {
    /// Whether both are of the same; in a time that tells nothing.
    pub(super) fn is(&self, other: &Self) -> bool {
        aws_lc_rs::constant_time::verify_slices_are_equal(self.0.as_ref(), other.0.as_ref()).is_ok()
    }
}

/// The second in which a token ends that is made at `now`.
pub(super) fn end(now: Timestamp, lifetime: Duration) -> i64 {
    let lifetime = SignedDuration::try_from(lifetime).unwrap_or(SignedDuration::ZERO);
    now.as_second().saturating_add(lifetime.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn token() -> Token {
        Token {
            user: "ci".into(),
            mark: "00".into(),
            until: end(at(1_000), Duration::from_secs(300)),
            may: vec!["hub/library/app".into()],
            list: false,
        }
    }

    #[test]
    fn a_token_is_read_by_its_own_key_until_its_end() {
        let (key, other) = (Key::new().unwrap(), Key::new().unwrap());
        let text = key.sign(&token());
        assert_eq!(key.read(&text, at(1_299)), Some(token()));
        assert_eq!(key.read(&text, at(1_300)), None);
        assert_eq!(other.read(&text, at(1_000)), None);
    }

    #[test]
    fn whatever_is_changed_in_a_token_ends_it() {
        let key = Key::new().unwrap();
        let text = key.sign(&token());
        for at_byte in 0..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[at_byte] = if changed[at_byte] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            // The last letter of a text in base64 has bits that mean nothing; what decodes strictly refuses them.
            assert_eq!(key.read(&changed, at(1_000)), None, "{at_byte}");
        }
        for nothing in ["", ".", "a.b", text.trim_end_matches(|letter| letter != '.')] {
            assert_eq!(key.read(nothing, at(1_000)), None);
        }
    }

    #[test]
    fn seals_tell_their_parts_apart() {
        let key = Key::new().unwrap();
        assert!(key.seal(&[b"ab", b"c"]).is(&key.seal(&[b"ab", b"c"])));
        assert!(!key.seal(&[b"ab", b"c"]).is(&key.seal(&[b"a", b"bc"])));
    }
}
