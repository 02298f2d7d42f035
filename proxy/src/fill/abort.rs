//! What becomes of a download whose last client has left.

use serde::{Deserialize, Serialize};

/// Whether a download goes on for nobody. With other clients attached it always goes on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnAbort {
    /// It goes on and is stored.
    #[default]
    Continue,
    /// It is given up, unless at least this share of it is there, in per cent (a body of unknown size counts as just begun).
    /// What came is kept, so that the next request goes on from there.
    Cancel {
        /// From this share on it goes on.
        finish_from_percent: u8,
    },
}

/// The setting `on_abort` of an upstream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AbortRule {
    /// See [`OnAbort::Continue`].
    #[default]
    Continue,
    /// See [`OnAbort::Cancel`].
    Cancel,
}

impl OnAbort {
    /// Whether the download is given up if nobody wants it when `received` bytes of `announced` are there.
    pub fn gives_up(self, received: u64, announced: Option<u64>) -> bool {
        match self {
            Self::Continue => false,
            Self::Cancel { finish_from_percent } => announced.is_none_or(|announced| {
                u128::from(received) * 100 < u128::from(announced) * u128::from(finish_from_percent)
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_download_that_is_nearly_done_is_finished() {
        let rule = OnAbort::Cancel {
            finish_from_percent: 60,
        };
        assert!(rule.gives_up(59, Some(100)) && !rule.gives_up(60, Some(100)));
        assert!(rule.gives_up(1 << 40, None) && !OnAbort::Continue.gives_up(0, None));
        let always = OnAbort::Cancel {
            finish_from_percent: 100,
        };
        assert!(always.gives_up(99, Some(100)) && !always.gives_up(100, Some(100)));
    }
}
