//! `[maintenance]`: how the platform's maintenance mode is asked for and switched, on Core.

use kato_shared::settings::text;
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
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
    #[serde(deserialize_with = "text::webs")]
    pub serving: Vec<Url>,
    /// Requests that would change something: each must be refused once the mode is on, else it is turned off again.
    pub refusing: Vec<Refused>,
}

/// A request that the platform refuses in maintenance mode.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refused {
    /// Where it goes. It is sent without a body and without credentials: should the mode be off after all, it must do no harm.
    #[serde(deserialize_with = "text::web")]
    pub url: Url,
    /// Its method.
    #[serde(default = "post", deserialize_with = "method")]
    pub method: String,
    /// What a refusal looks like.
    #[serde(default = "refusals", deserialize_with = "some_refusals")]
    pub status: Vec<u16>,
}

fn post() -> String {
    "POST".into()
}

/// A method as requests name it (RFC 9110 §9.1), which is in upper case by custom.
fn method<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let given = String::deserialize(from)?;
    let is_method = !given.is_empty() && given.bytes().all(|byte| byte.is_ascii_uppercase());
    is_method.then(|| given.clone()).ok_or_else(|| {
        D::Error::custom(format!(
            "{given:?} given, expected a method such as `POST` or `DELETE`"
        ))
    })
}

/// What can be a refusal at all: without one, or with a success among them, every platform would pass.
fn some_refusals<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u16>, D::Error> {
    let given = Vec::<u16>::deserialize(from)?;
    let is_refusal = |status: &u16| (400..=599).contains(status);
    if !given.is_empty() && given.iter().all(is_refusal) {
        return Ok(given);
    }
    Err(D::Error::custom(format!(
        "{given:?} given, expected at least one status from 400 to 599, such as `[403, 503]`"
    )))
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
