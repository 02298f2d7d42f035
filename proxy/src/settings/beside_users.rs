//! What clients get without a user's credentials though the settings have users: `registry.users_file` is about registries, and about their door
//! alone. Pure.
//!
//! Networks are what protects all else. An upstream with `clients` says who may have what comes from it, and is not named here, unless it leads to
//! the server of a registry: then its paths are a way around the users.

use std::fmt;

use serde::{Deserialize, Serialize};
use url::Url;

use super::{Kind, Settings, Upstream};
use crate::route::is_same_server;

/// An upstream whose content is given to those who are no users.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BesideUsers {
    /// Its name.
    pub upstream: String,
    /// Where it leads to the server of a registry: the URL, without credentials, and the registry's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub around: Option<(String, String)>,
}

impl BesideUsers {
    /// What to do next.
    pub const fn hint(&self) -> &'static str {
        if self.around.is_some() {
            "have the registry asked at its door alone: take that URL out of the upstream, or name in its `clients` whom you trust with it"
        } else {
            "name in `clients` of that [[upstream]] who may have what comes from it"
        }
    }
}

impl fmt::Display for BesideUsers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { upstream, around } = self;
        match around {
            None => write!(
                f,
                "registry.users_file protects registries alone: what comes from `{upstream}` is given to everybody whom [access] lets in"
            ),
            Some((url, registry)) => write!(
                f,
                "registry.users_file does not protect {url}: it is at the server of the registry `{registry}`, and is given without a user by way of `{upstream}`"
            ),
        }
    }
}

impl Settings {
    /// The upstreams whose content is given to those who are no users, where there are users.
    pub fn beside_users(&self) -> Vec<BesideUsers> {
        if self.registry.users_file.is_none() {
            return Vec::new();
        }
        let others = self
            .upstreams
            .iter()
            .filter(|upstream| upstream.kind != Kind::Registry);
        let found = others.filter_map(|upstream| {
            let around = self.around(upstream);
            (around.is_some() || upstream.clients.is_none()).then(|| BesideUsers {
                upstream: upstream.name.to_string(),
                around,
            })
        });
        found.collect()
    }

    /// A URL of `upstream` at the server of a registry that it alone decides about: what another upstream's longer base URL claims, that one
    /// decides about as well.
    fn around(&self, upstream: &Upstream) -> Option<(String, String)> {
        let registries = || self.upstreams.iter().filter(|other| other.kind == Kind::Registry);
        upstream.all_urls().find_map(|url| {
            let is_deeper = |base: &Url| is_same_server(base, url) && url.path().starts_with(base.path());
            let registry = registries().find(|registry| registry.all_urls().any(is_deeper))?;
            Some((kato_shared::redact::url(url), registry.name.to_string()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(upstreams: &str, has_users: bool) -> Vec<(String, Option<String>)> {
        let users = if has_users {
            "[registry]\nusers_file = \"/etc/kato/users\"\n"
        } else {
            ""
        };
        let registry =
            "[[upstream]]\nname = \"hub\"\nkind = \"registry\"\nurls = [\"https://hub.example/\"]\n";
        let text = format!("{users}{registry}{upstreams}");
        let settings: Settings =
            kato_shared::settings::parse(std::path::Path::new("proxy.toml"), &text).unwrap();
        let beside = settings.beside_users().into_iter();
        beside
            .map(|beside| (beside.upstream, beside.around.map(|(url, _)| url)))
            .collect()
    }

    #[test]
    fn what_needs_no_user_is_named_unless_it_is_said_who_may_have_it() {
        let files = "[[upstream]]\nname = \"files\"\nurls = [\"https://files.example/\"]\n";
        let known = format!("{files}clients = [\"10.1.0.0/16\"]\n");
        let around = "[[upstream]]\nname = \"files\"\nurls = [\"https://u:secret@hub.example/v2/lab/\"]\nclients = [\"10.1.0.0/16\"]\n";
        let open = |around: Option<&str>| vec![("files".to_owned(), around.map(str::to_owned))];
        assert_eq!(found(files, true), open(None));
        assert_eq!(found(files, false), []);
        assert_eq!(found(&known, true), []);
        assert_eq!(found("", true), []);
        let said = found(around, true);
        assert_eq!(said.len(), 1);
        let url = said[0].1.as_deref().unwrap();
        assert!(
            url.contains("hub.example/v2/lab/") && !url.contains("secret"),
            "{url}"
        );
        // Beside the registry's own paths it has a say itself.
        let beside = "[[upstream]]\nname = \"files\"\nurls = [\"https://hub.example:8443/\"]\nclients = [\"10.1.0.0/16\"]\n";
        assert_eq!(found(beside, true), []);
    }
}
