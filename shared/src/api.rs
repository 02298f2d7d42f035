//! What travels between `kato` and `kato-proxy`: problem details (RFC 9457) and the proxy's statistics.

use serde::{Deserialize, Serialize};

/// A problem detail (RFC 9457 §3.1), served as `application/problem+json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// A URI reference that names the kind, e.g. `urn:kato:problem:upstream-unreachable`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind for people; the same for every occurrence.
    pub title: String,
    /// The HTTP status code of the answer.
    pub status: u16,
    /// This occurrence: what failed, on what.
    pub detail: String,
    /// What to do next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Problem {
    /// The media type of a problem detail.
    pub const MEDIA_TYPE: &'static str = "application/problem+json";

    /// How the [`Problem::kind`] of every problem of the cache itself begins; an origin's own problems begin otherwise.
    pub const OWN: &'static str = "urn:kato:problem:";

    /// The [`Problem::kind`] of a cache that runs without upstreams and does not hold what was asked for.
    pub const OFFLINE: &'static str = "urn:kato:problem:offline";

    /// The [`Problem::kind`] when a registry's clients have to say who they are, which only `/v2/` asks them.
    pub const REGISTRY_DOOR: &'static str = "urn:kato:problem:registry-door";

    /// The [`Problem::kind`] when the request asked for a stored response only and there is none.
    pub const ONLY_IF_CACHED: &'static str = "urn:kato:problem:only-if-cached";

    /// Whether the cache itself says it, and not an origin through it.
    pub fn is_own(&self) -> bool {
        self.kind.starts_with(Self::OWN)
    }

    /// Whether the cache does not hold what was asked for and did not ask any upstream.
    pub fn is_not_stored(&self) -> bool {
        [Self::OFFLINE, Self::ONLY_IF_CACHED].contains(&self.kind.as_str())
    }
}

/// The answer of `GET /-/api/stats` on the proxy's admin listener.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// The version of this document; 1.
    pub schema: u32,
    /// Requests answered since the start, by their outcome.
    pub requests: RequestStats,
    /// Bytes received from upstreams since the start.
    pub wan_bytes: u64,
    /// Bytes of bodies sent to clients since the start.
    pub lan_bytes: u64,
    /// Bytes through CONNECT tunnels since the start, in both directions: what went past the store.
    #[serde(default)]
    pub tunnel_bytes: u64,
    /// Requests sent to upstreams since the start.
    pub upstream_requests: u64,
    /// Responses in the index.
    pub stored_responses: u64,
    /// Bytes of distinct content in the store.
    pub stored_bytes: u64,
    /// Responses among them that a power cut would lose, because they are on their way to the disk.
    #[serde(default)]
    pub queued_responses: u64,
    /// Digests of damaged content that is kept for somebody to look at.
    #[serde(default)]
    pub quarantined: Vec<String>,
    /// Per upstream.
    pub upstreams: Vec<UpstreamStats>,
}

/// Requests by their RFC 9211 outcome.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestStats {
    /// Answered from the store, fresh or validated.
    pub hit: u64,
    /// Forwarded because nothing was stored.
    pub miss: u64,
    /// Forwarded to validate a stale response.
    pub stale: u64,
    /// Joined a download that was under way.
    pub collapsed: u64,
    /// Forwarded without looking at the store.
    pub bypass: u64,
    /// Refused before any forwarding.
    pub refused: u64,
    /// Ended with an error of the upstream or ours.
    pub failed: u64,
}

/// One upstream's part of [`Stats`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamStats {
    /// The upstream's name in the settings.
    pub name: String,
    /// Requests sent to it since the start.
    pub requests: u64,
    /// Bytes received from it since the start.
    pub bytes: u64,
    /// Requests to it that failed since the start.
    pub failures: u64,
    /// Bytes through CONNECT tunnels to its hosts since the start.
    #[serde(default)]
    pub tunnel_bytes: u64,
}
