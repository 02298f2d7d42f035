//! `[download]`: how slowly downloads may come.

use kato_shared::settings::{ByteSize, HumanDuration, range};
use serde::{Deserialize, Serialize};

use crate::fetch::{Floor, Timeouts};

/// `[download]`: how slowly downloads may come. There is no limit on the whole time of a large file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DownloadSettings {
    /// Bytes per second below which a connection is cut off and begun anew; 0 bears any speed.
    pub min_speed: ByteSize,
    /// How long is looked at before that; at least a second.
    #[serde(deserialize_with = "range::duration_near::<_, _, 1, 1, 3600>")]
    pub min_speed_window: HumanDuration,
    /// How long a whole document of metadata may take, with all attempts; at least a second.
    #[serde(deserialize_with = "range::duration_near::<_, _, 1, 1, 86_400>")]
    pub document_timeout: HumanDuration,
}

impl Default for DownloadSettings {
    fn default() -> Self {
        let Timeouts { floor, document, .. } = Timeouts::default();
        Self {
            min_speed: ByteSize::new(floor.bytes / floor.window.as_secs().max(1)),
            min_speed_window: HumanDuration::from_secs(floor.window.as_secs()),
            document_timeout: HumanDuration::from_secs(document.as_secs()),
        }
    }
}

impl DownloadSettings {
    /// The limits of a [`crate::fetch::Fetcher`].
    pub fn timeouts(&self) -> Timeouts {
        Timeouts {
            floor: Floor::new(self.min_speed.bytes(), self.min_speed_window.get()),
            document: self.document_timeout.get(),
            ..Timeouts::default()
        }
    }
}
