//! `[notify]`: who is told what happens to this node.

use std::path::PathBuf;

use kato_shared::settings::{HumanDuration, range, text};
use serde::{Deserialize, Serialize};
use url::Url;

use super::Kind;

/// `[notify]`: who is told what happens to this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NotifySettings {
    /// Where documents are posted to; nobody is told anything when there is none.
    #[serde(deserialize_with = "text::webs")]
    pub urls: Vec<Url>,
    /// What is told.
    pub events: Vec<Kind>,
    /// The file with the secret that documents are signed with (HMAC-SHA-256).
    #[serde(deserialize_with = "text::filled_if_any")]
    pub secret_file: Option<PathBuf>,
    /// Certificates of authorities that are trusted beside the machine's own (PEM).
    #[serde(deserialize_with = "text::filled_if_any")]
    pub ca_file: Option<PathBuf>,
    /// How long one delivery may take, and how long the end of a run waits for all of them.
    #[serde(deserialize_with = "range::duration_near::<_, _, 0, 1, 600>")]
    pub timeout: HumanDuration,
    /// A step that takes longer than this is told.
    #[serde(deserialize_with = "range::duration_near::<_, _, 0, 1, 604_800>")]
    pub waiting: HumanDuration,
}

impl Default for NotifySettings {
    fn default() -> Self {
        Self {
            urls: Vec::new(),
            events: Kind::ALL.into(),
            secret_file: None,
            ca_file: None,
            timeout: HumanDuration::from_secs(5),
            waiting: HumanDuration::from_secs(900),
        }
    }
}
