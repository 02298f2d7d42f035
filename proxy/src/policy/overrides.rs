//! What an operator, or a format that we understand, knows better than the origin; and the record of each use of it.

use std::fmt;

use http::HeaderName;
use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

/// Settings per upstream that change decisions. The default changes nothing that RFC 9111 rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overrides {
    /// The path asked for never changes its content: stored at once, fresh for ever, never validated.
    pub immutable: bool,
    /// A shorter freshness lifetime is raised to this.
    pub min_freshness: Option<SignedDuration>,
    /// A longer freshness lifetime is cut to this.
    pub max_freshness: Option<SignedDuration>,
    /// How long a 404, 405, 410, 414 or 501 is fresh that says nothing about it.
    pub negative_ttl: Option<SignedDuration>,
    /// Which responses with `Set-Cookie` are stored.
    pub set_cookie: SetCookie,
    /// A client's `no-cache` and `max-age` do not reach the origin.
    pub ignore_client_no_cache: bool,
    /// Heuristic freshness, in per cent of the time since `Last-Modified`. RFC 9111 §4.2.2 names 10 as typical.
    pub heuristic_percent: u8,
    /// The most that heuristic freshness may reach.
    pub heuristic_max: SignedDuration,
    /// How long after becoming stale a response may stand in for an origin that fails, where the response itself sets no
    /// `stale-if-error`. `None` is no limit; zero never. Responses that forbid it are not touched by this.
    pub stale_if_error: Option<SignedDuration>,
    /// What is stored stands in, too, where the origin says that it has nothing by that name (404, 410) or wants no more questions
    /// (429): the name of content that is kept by its digest.
    pub serve_gone: bool,
    /// Targeted cache-control fields that speak to us (RFC 9213), in order of precedence.
    pub targeted_fields: Vec<HeaderName>,
}

/// Which responses with `Set-Cookie` are stored, of those that RFC 9111 allows to store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SetCookie {
    /// Those that say `public` or `s-maxage`.
    Public,
    /// Those that state a lifetime as well: their origin said that they may be kept.
    #[default]
    Explicit,
    /// All.
    Always,
}

impl Default for Overrides {
    fn default() -> Self {
        Self {
            immutable: false,
            min_freshness: None,
            max_freshness: None,
            negative_ttl: None,
            set_cookie: SetCookie::Explicit,
            ignore_client_no_cache: false,
            heuristic_percent: 10,
            heuristic_max: SignedDuration::from_hours(24),
            stale_if_error: None,
            serve_gone: false,
            targeted_fields: Vec::new(),
        }
    }
}

/// One departure from what the messages alone would have decided. Display is a short text for logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deviation {
    /// Reused without validation since the content matches a digest known in advance.
    KnownDigest,
    /// Reused without validation since the operator declared the path immutable.
    ImmutablePath,
    /// The freshness lifetime was raised to the operator's minimum.
    FreshnessRaised {
        /// What the response says.
        from: SignedDuration,
        /// What applies.
        to: SignedDuration,
    },
    /// The freshness lifetime was cut to the operator's maximum.
    FreshnessCapped {
        /// What the response says.
        from: SignedDuration,
        /// What applies.
        to: SignedDuration,
    },
    /// An error without a stated lifetime is fresh for as long as the operator says.
    NegativeRaised {
        /// What applies.
        to: SignedDuration,
    },
    /// A client's `no-cache`, `max-age` or `min-fresh` was passed over.
    ClientDirectivesIgnored,
}

impl Deviation {
    /// The rule that was applied, as one word for logs.
    pub const fn rule(&self) -> &'static str {
        match self {
            Self::KnownDigest => "known-digest",
            Self::ImmutablePath => "immutable",
            Self::FreshnessRaised { .. } => "min-freshness",
            Self::FreshnessCapped { .. } => "max-freshness",
            Self::NegativeRaised { .. } => "negative-ttl",
            Self::ClientDirectivesIgnored => "ignore-client-no-cache",
        }
    }
}

impl fmt::Display for Deviation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KnownDigest => f.write_str("not validated: the digest was known in advance"),
            Self::ImmutablePath => f.write_str("not validated: the path is declared immutable"),
            Self::FreshnessRaised { from, to } => {
                write!(
                    f,
                    "freshness lifetime raised from {} s to {} s",
                    from.as_secs(),
                    to.as_secs()
                )
            }
            Self::FreshnessCapped { from, to } => {
                write!(
                    f,
                    "freshness lifetime cut from {} s to {} s",
                    from.as_secs(),
                    to.as_secs()
                )
            }
            Self::NegativeRaised { to } => write!(f, "an error counts as fresh for {} s", to.as_secs()),
            Self::ClientDirectivesIgnored => f.write_str("the client's wish for validation is passed over"),
        }
    }
}
