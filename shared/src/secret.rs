//! A secret text, such as a bearer token: never shown, compared in constant time.

use std::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;

/// A secret. Debug shows that there is one, and nothing of it.
#[derive(Clone)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Takes the text over.
    pub fn new(text: impl Into<Vec<u8>>) -> Self {
        Self(text.into())
    }

    /// Its length in bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it is empty, and so no secret at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The text, for the one place that sends it.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Whether `given` is this secret. The time it takes says at most whether the lengths differ.
    pub fn is(&self, given: &[u8]) -> bool {
        verify_slices_are_equal(&self.0, given).is_ok()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_compared_and_never_shown() {
        let secret = Secret::new("pa55word");
        assert!(secret.is(b"pa55word"));
        for other in [&b"pa55worD"[..], b"pa55wor", b"pa55word ", b""] {
            assert!(!secret.is(other));
        }
        assert!(!format!("{secret:?}").contains("pa55"));
    }
}
