//! `[licence]`: how the platform's licence limits are waived and restored, on Core.

use serde::{Deserialize, Serialize};

use super::PlatformCommand;

/// `[licence]`: while nodes are emptied and come back, the others have more memory allotted than the licence allows for a while.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LicenceSettings {
    /// Has the platform overlook its limits; may be called twice.
    pub waive: Option<PlatformCommand>,
    /// Has it keep them again; may be called twice.
    pub restore: Option<PlatformCommand>,
}
