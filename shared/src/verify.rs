//! Checks a stream of bytes against the size and digest that were promised, without keeping the bytes.
//!
//! The consumer must not treat what it has received as whole before [`Verifier::finish`] says so.

use crate::{Digest, digest::Hasher};

/// What was received is not what was promised.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum VerifyError {
    /// More bytes than promised: an endless-data attack or a wrong file. Raised at the first byte too many.
    #[error("more than the expected {expected} bytes were received")]
    TooLong {
        /// The promised size in bytes.
        expected: u64,
    },
    /// The stream ended early.
    #[error("{received} of {expected} bytes were received")]
    TooShort {
        /// The promised size in bytes.
        expected: u64,
        /// What arrived, in bytes.
        received: u64,
    },
    /// The right size with other content.
    #[error("digest mismatch: expected {expected}, received {received}")]
    DigestMismatch {
        /// The promised digest.
        expected: Digest,
        /// The digest of what arrived.
        received: Digest,
    },
}

/// Takes in a stream piece by piece and gives the verdict at its end.
#[derive(Debug)]
pub struct Verifier {
    hasher: Hasher,
    received: u64,
    size: u64,
    digest: Digest,
}

impl Verifier {
    /// Expects exactly `size` bytes with `digest`.
    pub fn new(size: u64, digest: Digest) -> Self {
        Self {
            hasher: Hasher::new(),
            received: 0,
            size,
            digest,
        }
    }

    /// Takes in the next piece.
    ///
    /// # Errors
    /// [`VerifyError::TooLong`] as soon as the promised size is passed.
    pub fn update(&mut self, piece: &[u8]) -> Result<(), VerifyError> {
        self.received += piece.len() as u64;
        if self.received > self.size {
            return Err(VerifyError::TooLong { expected: self.size });
        }
        self.hasher.update(piece);
        Ok(())
    }

    /// Bytes taken in so far.
    pub const fn received(&self) -> u64 {
        self.received
    }

    /// The verdict.
    ///
    /// # Errors
    /// [`VerifyError::TooShort`] or [`VerifyError::DigestMismatch`].
    pub fn finish(self) -> Result<(), VerifyError> {
        if self.received != self.size {
            return Err(VerifyError::TooShort {
                expected: self.size,
                received: self.received,
            });
        }
        let received = self.hasher.finish();
        if received == self.digest {
            Ok(())
        } else {
            Err(VerifyError::DigestMismatch {
                expected: self.digest,
                received,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(promised: &[u8], pieces: &[&[u8]]) -> Result<(), VerifyError> {
        let mut verifier = Verifier::new(promised.len() as u64, Digest::of(promised));
        for piece in pieces {
            verifier.update(piece)?;
        }
        verifier.finish()
    }

    #[test]
    fn what_was_promised_passes_in_any_pieces() {
        assert_eq!(run(b"abc", &[b"abc"]), Ok(()));
        assert_eq!(run(b"abc", &[b"a", b"", b"bc"]), Ok(()));
    }

    #[test]
    fn short_long_and_altered_streams_are_told_apart() {
        assert_eq!(
            run(b"abc", &[b"ab"]),
            Err(VerifyError::TooShort {
                expected: 3,
                received: 2
            })
        );
        assert_eq!(run(b"abc", &[b"abcd"]), Err(VerifyError::TooLong { expected: 3 }));
        assert!(matches!(
            run(b"abc", &[b"abd"]),
            Err(VerifyError::DigestMismatch { .. })
        ));
    }
}
