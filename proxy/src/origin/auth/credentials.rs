//! User and password for a registry, from a file of their own or from a docker client's configuration.

use std::{collections::HashMap, fmt, io, path::Path};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use http::HeaderValue;
use serde::Deserialize;

use super::OriginError;
use crate::{origin::tls::warn_if_open, settings::Upstream};

/// A user with a password.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Credentials {
    user: String,
    /// `Basic …`, marked as sensitive.
    basic: HeaderValue,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// The part of a docker configuration that is read.
#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: HashMap<String, DockerAuth>,
}

#[derive(Deserialize)]
struct DockerAuth {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
}

impl Credentials {
    /// Those that the settings of `upstream` name.
    ///
    /// # Errors
    /// [`OriginError::File`] naming the key, the file and what is expected in it.
    pub(super) fn of(upstream: &Upstream) -> Result<Option<Self>, OriginError> {
        let rules = &upstream.registry;
        if let Some(path) = &rules.credentials_file {
            let wanted = Wanted {
                key: "registry.credentials_file",
                path,
                expected: "one line user:password",
            };
            let text = wanted.read()?;
            let line = text.trim_end_matches(['\r', '\n']);
            return Self::of_pair(line).map(Some).ok_or_else(|| wanted.bad(None));
        }
        let Some(path) = &rules.docker_config else {
            return Ok(None);
        };
        let wanted = Wanted {
            key: "registry.docker_config",
            path,
            expected: "a docker configuration with `auth` for this registry in `auths` (credential helpers and identity tokens are not used)",
        };
        let config: DockerConfig =
            serde_json::from_str(&wanted.read()?).map_err(|error| wanted.bad(Some(error.into())))?;
        let entry = config
            .auths
            .iter()
            .find(|(host, _)| upstream.is_registry_called(bare(host)))
            .and_then(|(_, entry)| entry.pair());
        let pair = entry.ok_or_else(|| wanted.bad(None))?;
        Self::of_pair(&pair).map(Some).ok_or_else(|| wanted.bad(None))
    }

    /// `user:password`, on one line.
    fn of_pair(pair: &str) -> Option<Self> {
        let (user, _) = pair.split_once(':').filter(|_| !pair.contains(['\n', '\r']))?;
        let mut basic = HeaderValue::try_from(format!("Basic {}", BASE64_STANDARD.encode(pair))).ok()?;
        basic.set_sensitive(true);
        (!user.is_empty()).then(|| Self {
            user: user.to_owned(),
            basic,
        })
    }

    /// The user's name.
    pub(super) fn user(&self) -> &str {
        &self.user
    }

    /// The value of `Authorization` (RFC 7617).
    pub(super) fn basic(&self) -> HeaderValue {
        self.basic.clone()
    }
}

impl DockerAuth {
    fn pair(&self) -> Option<String> {
        if let Some(auth) = self.auth.as_ref().filter(|auth| !auth.is_empty()) {
            let pair = BASE64_STANDARD.decode(auth.trim()).ok()?;
            // Some clients end it with a NUL.
            return String::from_utf8(pair)
                .ok()
                .map(|pair| pair.trim_end_matches('\0').to_owned());
        }
        Some(format!("{}:{}", self.username.as_ref()?, self.password.as_ref()?))
    }
}

/// The host of a key of `auths`, which may be a URL.
fn bare(key: &str) -> &str {
    let host = key.split_once("://").map_or(key, |(_, rest)| rest);
    host.split('/').next().unwrap_or_default()
}

/// A file with a secret.
struct Wanted<'f> {
    key: &'static str,
    path: &'f Path,
    expected: &'static str,
}

impl Wanted<'_> {
    fn read(&self) -> Result<String, OriginError> {
        warn_if_open(self.path);
        std::fs::read_to_string(self.path).map_err(|error| self.bad(Some(error)))
    }

    fn bad(&self, source: Option<io::Error>) -> OriginError {
        OriginError::File {
            key: self.key,
            path: self.path.to_owned(),
            expected: self.expected,
            source,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Kind, RegistryHost};

    fn upstream() -> Upstream {
        let mut upstream: Upstream = "hub=https://registry.hub.example/".parse().unwrap();
        upstream.kind = Kind::Registry;
        upstream.registry.aliases = vec![RegistryHost::try_from("index.hub.example".to_owned()).unwrap()];
        upstream
    }

    #[test]
    fn credentials_come_from_a_file_of_their_own_or_from_docker() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("credentials");
        let basic =
            |upstream: &Upstream| Credentials::of(upstream).map(|found| found.map(|found| found.basic()));
        assert_eq!(basic(&upstream()).unwrap(), None);
        kato_shared::durable::write(&path, b"me:pa:ss\n", 0o600).unwrap();
        let mut own = upstream();
        own.registry.credentials_file = Some(path.clone());
        assert_eq!(basic(&own).unwrap().unwrap(), "Basic bWU6cGE6c3M=");
        assert!(!format!("{:?}", Credentials::of(&own).unwrap()).contains("bWU6"));
        let mut docker = upstream();
        docker.registry.docker_config = Some(path.clone());
        for key in ["https://index.hub.example/v1/", "registry.hub.example"] {
            let text = format!(
                r#"{{"auths":{{"other.example":{{"auth":"eDp5"}},"{key}":{{"auth":"bWU6cGE6c3M="}}}}}}"#
            );
            kato_shared::durable::write(&path, text.as_bytes(), 0o600).unwrap();
            assert_eq!(basic(&docker).unwrap().unwrap(), "Basic bWU6cGE6c3M=", "{key}");
        }
        for useless in [
            "nonsense",
            "{}",
            r#"{"auths":{"registry.hub.example":{}},"credsStore":"x"}"#,
        ] {
            kato_shared::durable::write(&path, useless.as_bytes(), 0o600).unwrap();
            let refused = basic(&docker).unwrap_err().to_string();
            assert!(
                refused.contains("docker_config") && refused.contains("auths"),
                "{refused}"
            );
        }
    }
}
