//! Section `[registry]` (the door `/v2/`), and the table `[upstream.registry]` of upstreams with `kind = "registry"`.
//!
//! Deliberately absent: reading the files named here (who uses the secrets reads them), and any host of a public registry: what a
//! client calls a registry is the operator's to say.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use jiff::SignedDuration;
use kato_shared::settings::HumanDuration;
use serde::{Deserialize, Serialize};
use url::Url;

use super::{Kind, Upstream, UpstreamName};
use crate::ecosystem::oci::{self, Endpoint};

/// Section `[registry]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Registry {
    /// The upstream that is meant where a request names no registry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default: Option<UpstreamName>,
    /// Who may use the door: a file with lines `name:sha256:<hex digest of the secret>` or `name:$2y$…` (bcrypt, as `htpasswd -B`
    /// writes them); `None` for everybody that the networks allow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub users_file: Option<PathBuf>,
    /// With it, users change name and secret for a token at `/-/token`, which is good for this long: one minute to one day.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_lifetime: Option<HumanDuration>,
    /// By user, what may be pulled: `UPSTREAM/REPOSITORY`, or the beginning of such, which ends with a slash. `*` stands for the users
    /// that are not named; without it they may pull everything.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub rights: BTreeMap<String, Vec<String>>,
}

/// "For compatibility with older clients, a token should never be returned with less than 60 seconds to live" (distribution
/// specification, "Token response fields").
const SHORTEST_TOKEN: Duration = Duration::from_secs(60);
/// A token names what its user might pull when it was made; nobody should have to wait longer for a change to hold.
const LONGEST_TOKEN: Duration = Duration::from_secs(24 * 3600);

/// Table `[upstream.registry]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RegistryRules {
    /// What clients call this registry, beside its name and the hosts of its `urls`: `host`, `host:port` or one word.
    pub aliases: Vec<RegistryHost>,
    /// Where repositories of one word are: `app` is asked for as `<library>/app`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub library: Option<String>,
    /// How long a tag, or a list of tags, is believed; a tenth more or less, so that not all are asked about at once.
    pub tag_ttl: HumanDuration,
    /// Whether a tag that the upstream has no more (404, 410), or does not want to speak about (429), is still served.
    pub serve_gone: bool,
    /// A file with `user:password` for this registry and its token service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials_file: Option<PathBuf>,
    /// The same from a configuration of the docker client: the entry of `auths` for one of the names of this registry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub docker_config: Option<PathBuf>,
    /// Hosts (`host` or `host:port`) of token services beside those in the registry's own domain.
    pub token_hosts: Vec<RegistryHost>,
}

impl Default for RegistryRules {
    fn default() -> Self {
        Self {
            aliases: Vec::new(),
            library: None,
            tag_ttl: HumanDuration::from_secs(60),
            serve_gone: true,
            credentials_file: None,
            docker_config: None,
            token_hosts: Vec::new(),
        }
    }
}

impl RegistryRules {
    /// How long a response at `path`, below the base URL, is believed where it is about a name and not about a digest.
    ///
    /// The spread follows from the path, not from chance: a stored response must not be fresh now and stale a moment before.
    pub fn name_lifetime(&self, path: &str) -> Option<SignedDuration> {
        let path = path.split('?').next().unwrap_or_default();
        let is_name = match oci::endpoint(path).ok()? {
            Endpoint::Manifest { reference, .. } => reference.is_tag(),
            Endpoint::Tags { .. } | Endpoint::Referrers { .. } | Endpoint::Catalog => true,
            Endpoint::Base | Endpoint::Blob { .. } | Endpoint::Upload { .. } => false,
        };
        let lifetime = SignedDuration::try_from(self.tag_ttl.get()).unwrap_or(SignedDuration::MAX);
        is_name.then(|| spread(lifetime, path))
    }

    /// Whether the files behind these settings may change while the settings do not.
    pub const fn reads_files(&self) -> bool {
        self.credentials_file.is_some() || self.docker_config.is_some()
    }
}

/// `lifetime`, from nine to eleven tenths of it, by `path`.
fn spread(lifetime: SignedDuration, path: &str) -> SignedDuration {
    // FNV-1a: it need not be good, it must stay the same.
    let mixed = path.bytes().fold(0x811c_9dc5_u32, |mixed, byte| {
        (mixed ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    let percent = 90 + i32::try_from(mixed % 21).unwrap_or(10);
    lifetime
        .checked_mul(percent)
        .map_or(lifetime, |scaled| scaled / 100)
}

/// What a client may call a registry, in lower case: `host`, `host:port`, or one word without dots.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RegistryHost(String);

impl RegistryHost {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for RegistryHost {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let lower = text.to_ascii_lowercase();
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
        if lower.is_empty() || !lower.bytes().all(fits) {
            return Err(format!(
                "`{text}` is not the name of a registry: expected a host, host:port or one word"
            ));
        }
        Ok(Self(lower))
    }
}

impl From<RegistryHost> for String {
    fn from(host: RegistryHost) -> Self {
        host.0
    }
}

impl Upstream {
    /// Whether clients call this registry `name`: its name here, a host of its `urls` (with the port where it is not the usual
    /// one), or an alias.
    pub fn is_registry_called(&self, name: &str) -> bool {
        let is_host = |url: &Url| {
            url.host_str().is_some_and(|host| match url.port() {
                Some(port) => name
                    .strip_suffix(&format!(":{port}"))
                    .is_some_and(|bare| bare.eq_ignore_ascii_case(host)),
                None => name.eq_ignore_ascii_case(host),
            })
        };
        self.kind == Kind::Registry
            && (self.name.as_str() == name
                || self.urls.iter().any(|base| is_host(base.url()))
                || self
                    .registry
                    .aliases
                    .iter()
                    .any(|alias| alias.as_str().eq_ignore_ascii_case(name)))
    }
}

/// What the settings about registries get wrong.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum InvalidRegistry {
    /// The default is no registry.
    #[error(
        "registry.default is `{0}`, and no upstream with kind = \"registry\" has that name\nhint: name one of the [[upstream]] sections"
    )]
    Default(UpstreamName),
    /// One name, two registries.
    #[error(
        "`{name}` names both the registry `{first}` and the registry `{second}`\nhint: give each alias to one upstream"
    )]
    Ambiguous {
        /// The alias.
        name: String,
        /// Who has it first.
        first: UpstreamName,
        /// Who has it, too.
        second: UpstreamName,
    },
    /// Users without a file of them.
    #[error(
        "registry.{0} is set, and registry.users_file is not\nhint: name the file of the users, whom this is about"
    )]
    NoUsers(&'static str),
    /// A lifetime that clients or operators would not expect.
    #[error("registry.token_lifetime is {0}: expected one minute to one day")]
    TokenLifetime(HumanDuration),
    /// A right that leads nowhere.
    #[error(
        "registry.rights of `{user}` names `{right}`: expected UPSTREAM/REPOSITORY or a beginning of such that ends with a slash, with the name of a registry"
    )]
    Right {
        /// Whose.
        user: String,
        /// The text.
        right: String,
    },
    /// Two places for one secret.
    #[error("the upstream `{0}` has both credentials_file and docker_config\nhint: keep one of them")]
    TwoCredentials(UpstreamName),
}

impl Registry {
    pub(super) fn validate(&self, upstreams: &[Upstream]) -> Result<(), InvalidRegistry> {
        let is_registry = |name: &UpstreamName| {
            upstreams
                .iter()
                .any(|upstream| upstream.name == *name && upstream.kind == Kind::Registry)
        };
        if let Some(default) = self.default.as_ref().filter(|name| !is_registry(name)) {
            return Err(InvalidRegistry::Default(default.clone()));
        }
        self.validate_users(is_registry)?;
        for (nth, upstream) in upstreams.iter().enumerate() {
            let rules = &upstream.registry;
            if rules.credentials_file.is_some() && rules.docker_config.is_some() {
                return Err(InvalidRegistry::TwoCredentials(upstream.name.clone()));
            }
            let mut others = upstreams.iter().enumerate().filter(|(other, _)| *other != nth);
            for alias in &rules.aliases {
                if let Some((_, other)) = others.find(|(_, other)| other.is_registry_called(alias.as_str())) {
                    return Err(InvalidRegistry::Ambiguous {
                        name: alias.as_str().to_owned(),
                        first: upstream.name.clone(),
                        second: other.name.clone(),
                    });
                }
            }
        }
        Ok(())
    }

    fn validate_users(&self, is_registry: impl Fn(&UpstreamName) -> bool) -> Result<(), InvalidRegistry> {
        if let Some(lifetime) = self.token_lifetime
            && !(SHORTEST_TOKEN..=LONGEST_TOKEN).contains(&lifetime.get())
        {
            return Err(InvalidRegistry::TokenLifetime(lifetime));
        }
        let about_users = [
            ("token_lifetime", self.token_lifetime.is_some()),
            ("rights", !self.rights.is_empty()),
        ];
        if let Some((key, _)) = about_users
            .iter()
            .find(|(_, is_set)| *is_set && self.users_file.is_none())
        {
            return Err(InvalidRegistry::NoUsers(key));
        }
        let mut all = self
            .rights
            .iter()
            .flat_map(|(user, rights)| rights.iter().map(move |right| (user, right)));
        let leads_nowhere = |right: &str| {
            let name = right.split_once('/').map(|(name, _)| name.to_owned());
            !name
                .and_then(|name| UpstreamName::try_from(name).ok())
                .is_some_and(|name| is_registry(&name))
        };
        match all.find(|(_, right)| leads_nowhere(right)) {
            Some((user, right)) => Err(InvalidRegistry::Right {
                user: user.clone(),
                right: right.clone(),
            }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry(name: &str, url: &str, alias: &str) -> Upstream {
        let mut upstream: Upstream = format!("{name}={url}").parse().unwrap();
        upstream.kind = Kind::Registry;
        upstream.registry.aliases = vec![RegistryHost::try_from(alias.to_owned()).unwrap()];
        upstream
    }

    #[test]
    fn p12_a_registry_has_its_name_its_hosts_and_its_aliases() {
        let upstream = registry("hub", "https://Registry.example:5000/", "Hub.example");
        for (name, is_it) in [
            ("hub", true),
            ("registry.example:5000", true),
            ("REGISTRY.example:5000", true),
            ("registry.example", false),
            ("hub.example", true),
            ("other.example", false),
        ] {
            assert_eq!(upstream.is_registry_called(name), is_it, "{name}");
        }
        let mut generic = upstream;
        generic.kind = Kind::Generic;
        assert!(!generic.is_registry_called("hub"));
    }

    #[test]
    fn what_two_registries_are_called_and_a_default_that_is_none_are_refused() {
        let upstreams = [
            registry("a", "https://a.example/", "x.example"),
            registry("b", "https://b.example/", "a.example"),
        ];
        let refused = Registry::default().validate(&upstreams).unwrap_err();
        assert!(matches!(refused, InvalidRegistry::Ambiguous { .. }), "{refused}");
        let settings = Registry {
            default: Some(UpstreamName::try_from("c".to_owned()).unwrap()),
            ..Registry::default()
        };
        assert!(matches!(
            settings.validate(&upstreams[..1]),
            Err(InvalidRegistry::Default(_))
        ));
    }

    #[test]
    fn tokens_and_rights_are_about_users_and_rights_name_registries() {
        let upstreams = [registry("a", "https://a.example/", "x.example")];
        let invalid = |users: bool, seconds: Option<u64>, right: Option<&str>| {
            let settings = Registry {
                users_file: users.then(|| "users".into()),
                token_lifetime: seconds.map(HumanDuration::from_secs),
                rights: right
                    .map(|right| ("ci".to_owned(), vec![right.to_owned()]))
                    .into_iter()
                    .collect(),
                ..Registry::default()
            };
            settings.validate(&upstreams).err().map(|error| error.to_string())
        };
        for (users, seconds, right, expected) in [
            (true, Some(300), Some("a/library/"), None),
            (true, None, Some("a/"), None),
            (false, Some(300), None, Some("users_file is not")),
            (false, None, Some("a/"), Some("users_file is not")),
            (true, Some(59), None, Some("one minute")),
            (true, Some(86_401), None, Some("one day")),
            (true, None, Some("b/x"), Some("`b/x`")),
            (true, None, Some("a"), Some("`a`")),
        ] {
            let error = invalid(users, seconds, right);
            let is_expected = match (&error, expected) {
                (Some(error), Some(part)) => error.contains(part),
                (error, part) => error.is_none() && part.is_none(),
            };
            assert!(is_expected, "{seconds:?} {right:?}: {error:?}");
        }
    }

    #[test]
    fn p11_names_live_for_the_time_that_is_set_a_tenth_more_or_less_and_digests_are_no_names() {
        let rules = RegistryRules::default();
        let lifetimes: Vec<_> = (0..50)
            .filter_map(|nth| rules.name_lifetime(&format!("v2/a/manifests/t{nth}")))
            .map(|lifetime| lifetime.as_millis())
            .collect();
        assert_eq!(lifetimes.len(), 50);
        assert!(
            lifetimes
                .iter()
                .all(|lifetime| (54_000..=66_000).contains(lifetime))
        );
        assert!(lifetimes.iter().any(|lifetime| *lifetime != lifetimes[0]));
        let digest = "sha256:0000000000000000000000000000000000000000000000000000000000000000";
        assert_eq!(rules.name_lifetime(&format!("v2/a/manifests/{digest}")), None);
        assert_eq!(rules.name_lifetime(&format!("v2/a/blobs/{digest}")), None);
        assert!(rules.name_lifetime("v2/a/tags/list?n=5").is_some());
    }
}
