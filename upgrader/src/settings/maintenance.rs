//! `[maintenance]`: how the platform's maintenance mode is asked for and switched, on Core.

use serde::{Deserialize, Serialize};
use url::Url;

use super::PlatformCommand;

/// `[maintenance]`: while the cluster is upgraded, the platform takes no orders and goes on serving.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MaintenanceSettings {
    /// What an upgrade of the cluster does about it.
    pub auto: MaintenanceAuto,
    /// Prints whether it is on: `{"on": true}`.
    pub get: Option<PlatformCommand>,
    /// Turns it on; may be called twice.
    pub on: Option<PlatformCommand>,
    /// Turns it off; may be called twice. It must work while the platform refuses everything else.
    pub off: Option<PlatformCommand>,
    /// Addresses of what the platform serves: each must answer 200 once the mode is on, else it is turned off again.
    pub serving: Vec<Url>,
    /// Requests that would change something: each must be refused once the mode is on, else it is turned off again.
    pub refusing: Vec<Refused>,
}

/// A request that the platform refuses in maintenance mode.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refused {
    /// Where it goes. It is sent without a body and without credentials: should the mode be off after all, it must do no harm.
    pub url: Url,
    /// Its method.
    #[serde(default = "post")]
    pub method: String,
    /// What a refusal looks like.
    #[serde(default = "refusals")]
    pub status: Vec<u16>,
}

fn post() -> String {
    "POST".into()
}

/// 403 Forbidden, 405 Method Not Allowed, 423 Locked (RFC 4918), 503 Service Unavailable.
fn refusals() -> Vec<u16> {
    vec![403, 405, 423, 503]
}

/// What an upgrade of the cluster does about the maintenance mode.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MaintenanceAuto {
    /// It must be on before the first node is changed. Where a person is at the terminal, they are asked whether to turn it on.
    #[default]
    Verify,
    /// It is turned on before the first node is changed, and put back as it was after the last one.
    On,
    /// Nobody looks at it.
    Off,
}
