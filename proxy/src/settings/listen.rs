//! Section `[listen]`: the addresses.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// Section `[listen]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Listen {
    /// The address that clients use.
    pub data: SocketAddr,
    /// The address of health, metrics and the API; keep it on loopback.
    pub admin: SocketAddr,
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            data: SocketAddr::from(([0, 0, 0, 0], 3180)),
            admin: SocketAddr::from(([127, 0, 0, 1], 3181)),
        }
    }
}
