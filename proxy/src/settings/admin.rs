//! Section `[admin]`: who may use the admin listener.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Section `[admin]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Admin {
    /// The file with the token that the API asks for, read at each request, so that it can be replaced. Without it the
    /// API answers loopback and Unix sockets alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// What is open to whoever reaches the listener.
    pub open: Vec<OpenPage>,
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            token_file: None,
            open: vec![OpenPage::Health],
        }
    }
}

/// A page that needs no token where the settings say so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OpenPage {
    /// `/-/healthz`.
    Health,
    /// `/-/metrics`.
    Metrics,
}
