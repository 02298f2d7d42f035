//! Section `[mirror]`: how a server without a network behaves.

use serde::{Deserialize, Serialize};

/// Section `[mirror]`. It says something only where `offline = true`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mirror {
    /// Pages of package indexes that nobody signs name only the versions that are held, for clients by mirror path, so that resolvers choose one of them.
    pub filter_indexes: bool,
    /// The number of the snapshot that is served in place of the active one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<u64>,
    /// What is asked for in vain is noted in `misses.jsonl` in the store's folder.
    pub note_misses: bool,
}

impl Default for Mirror {
    fn default() -> Self {
        Self {
            snapshot: None,
            filter_indexes: true,
            note_misses: true,
        }
    }
}
