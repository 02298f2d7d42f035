//! What a document promises about content: its digest, by one of the functions that indexes use.
//!
//! The store knows content by SHA-256. A promise by another function is kept or broken when the content has come, and the store notes
//! which of its own digests that is (`store/proofs`): from then on the promise is as good as one by SHA-256.
//!
//! SHA-1 is here for packages of npm that are older than its `integrity` field. It finds damage; against somebody who makes two files with one
//! digest it proves nothing, so content that was proved by it counts for the URL for which it was proved alone.

use std::{fmt, io, str::FromStr};

use kato_shared::{Digest, digest::OtherHasher};
use serde::{Deserialize, Serialize};

/// The digest of some content. Displays as `<function>:<lower-case hex digits>`, which is its written form in the store, too.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Integrity {
    /// By SHA-256, the store's own.
    Sha256(Digest),
    /// By SHA-512.
    Sha512([u8; 64]),
    /// By SHA-1, which finds damage and no malice.
    Sha1([u8; 20]),
}

impl Integrity {
    /// The digest by SHA-256, if it is one.
    pub const fn sha256(&self) -> Option<Digest> {
        match self {
            Self::Sha256(digest) => Some(*digest),
            Self::Sha512(_) | Self::Sha1(_) => None,
        }
    }

    /// What computes a digest by the same function, where that is another than the store's own.
    pub fn hasher(&self) -> Option<OtherHasher> {
        match self {
            Self::Sha256(_) => None,
            Self::Sha512(_) => Some(OtherHasher::sha512()),
            Self::Sha1(_) => Some(OtherHasher::sha1()),
        }
    }

    /// The digest that content has by the same function: `ours` by SHA-256, else what `other`, which [`Self::hasher`] gave, comes to.
    #[must_use]
    pub fn received(&self, ours: Digest, other: Option<OtherHasher>) -> Self {
        let other = other.map(OtherHasher::finish);
        match (self, &other) {
            (Self::Sha512(_), Some(bytes)) => bytes.as_slice().try_into().map(Self::Sha512).ok(),
            (Self::Sha1(_), Some(bytes)) => bytes.as_slice().try_into().map(Self::Sha1).ok(),
            (Self::Sha256(_), _) | (Self::Sha512(_) | Self::Sha1(_), None) => None,
        }
        .unwrap_or(Self::Sha256(ours))
    }

    /// The digest that `content`, which is at hand, has by the same function.
    #[must_use]
    pub fn of(&self, ours: Digest, content: &[u8]) -> Self {
        let other = self.hasher().map(|mut hasher| {
            hasher.update(content);
            hasher
        });
        self.received(ours, other)
    }

    /// Whether the function still proves that content is what was meant.
    pub const fn is_proof(&self) -> bool {
        !matches!(self, Self::Sha1(_))
    }

    /// Whether it is what `content`, known as `ours`, has.
    ///
    /// # Errors
    /// When `content` cannot be read to its end.
    pub fn holds_for(&self, ours: Digest, mut content: impl io::Read) -> io::Result<bool> {
        let other = self
            .hasher()
            .map(|mut hasher| hasher.read(&mut content).map(|()| hasher));
        Ok(self.received(ours, other.transpose()?) == *self)
    }
}

impl From<Digest> for Integrity {
    fn from(digest: Digest) -> Self {
        Self::Sha256(digest)
    }
}

impl fmt::Display for Integrity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (function, bytes): (_, &[u8]) = match self {
            Self::Sha256(digest) => return digest.fmt(f),
            Self::Sha512(bytes) => ("sha512", bytes),
            Self::Sha1(bytes) => ("sha1", bytes),
        };
        write!(f, "{function}:")?;
        bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Integrity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text is no digest of a function that is known here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected sha256:, sha512: or sha1: and as many hexadecimal digits as its digests have")]
pub struct NoIntegrity;

impl FromStr for Integrity {
    type Err = NoIntegrity;

    fn from_str(text: &str) -> Result<Self, NoIntegrity> {
        let (function, digits) = text.split_once(':').ok_or(NoIntegrity)?;
        match function {
            "sha256" => digits.parse().map(Self::Sha256).ok(),
            "sha512" => bytes(digits).map(Self::Sha512),
            "sha1" => bytes(digits).map(Self::Sha1),
            _ => None,
        }
        .ok_or(NoIntegrity)
    }
}

impl TryFrom<String> for Integrity {
    type Error = NoIntegrity;

    fn try_from(text: String) -> Result<Self, NoIntegrity> {
        text.parse()
    }
}

impl From<Integrity> for String {
    fn from(integrity: Integrity) -> Self {
        integrity.to_string()
    }
}

/// The bytes that exactly `2 * N` hexadecimal digits stand for.
pub(super) fn bytes<const N: usize>(digits: &str) -> Option<[u8; N]> {
    let digits = digits.as_bytes();
    let mut bytes = [0; N];
    if digits.len() != 2 * N {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let nibble = |digit: &u8| {
            char::from(*digit)
                .to_digit(16)
                .and_then(|value| u8::try_from(value).ok())
        };
        let [high, low] = pair else { return None };
        *byte = nibble(high)? << 4 | nibble(low)?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_function_is_written_and_read_back_and_computed() {
        let ours = Digest::of(b"abc");
        for (text, is_proof) in [
            (
                "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
                true,
            ),
            (
                "sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
                true,
            ),
            ("sha1:a9993e364706816aba3e25717850c26c9cd0d89d", false),
        ] {
            let integrity: Integrity = text.parse().unwrap();
            assert_eq!(integrity.to_string(), text);
            assert_eq!(integrity.is_proof(), is_proof);
            assert_eq!(integrity.of(ours, b"abc"), integrity);
            assert!(integrity.holds_for(ours, &b"abc"[..]).unwrap());
            assert!(!integrity.holds_for(Digest::of(b"abd"), &b"abd"[..]).unwrap());
        }
        for text in ["", "sha1:", "sha1:zz", "md5:00", "sha512:00", "sha256:00"] {
            assert_eq!(text.parse::<Integrity>(), Err(NoIntegrity), "{text}");
        }
    }
}
