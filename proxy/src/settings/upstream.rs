//! One `[[upstream]]`: an origin that may be asked, under one name, at one or more base URLs.

use std::{fmt, net::IpAddr, path::PathBuf, str::FromStr};

use http::HeaderName;
use jiff::SignedDuration;
use kato_shared::{
    redact,
    settings::{ByteSize, HumanDuration},
};
use serde::{Deserialize, Serialize};
use url::Url;

use super::{InvalidSettings, Network, ParentProxy, RegistryRules, any_contains};
use crate::{
    ecosystem::tuf::{self, Lasting},
    fill::{AbortRule, OnAbort},
    policy::{Overrides, SetCookie},
    route::path_below,
};

/// A configured origin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    /// The name, which is also its mirror path `/<name>/…`.
    pub name: UpstreamName,
    /// Base URLs of the same content, tried in this order.
    pub urls: Vec<BaseUrl>,
    /// Base URLs of the files that its indexes link to, where those are elsewhere. Each is asked for what is below it alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub file_urls: Vec<BaseUrl>,
    /// What is served there.
    #[serde(default)]
    pub kind: Kind,
    /// Whether CONNECT to its hosts is opened with a leaf of the local authority.
    #[serde(default)]
    pub intercept: bool,
    /// With kind `pypi`, `npm` or `cargo`: whether links in its indexes lead to us for those who come by a mirror path.
    #[serde(default = "default_rewrite_links")]
    pub rewrite_links: bool,
    /// Paths (globs, relative to the base URL) whose content never changes: never validated once stored.
    #[serde(default)]
    pub immutable: Vec<PathGlob>,
    /// Sidecars (globs: over the file name, or with a slash over the path below the base URL) that list SHA-256 digests of the files
    /// beside them.
    #[serde(default)]
    pub digests: Vec<PathGlob>,
    /// Hosts that its redirects may lead to beside those of `urls`: names with all below them, addresses, networks, each perhaps with
    /// `:port`; without it, every host whose address is neither guarded nor private.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirect_hosts: Option<Vec<String>>,
    /// Parameters of queries that may cross a gap, in bundles and request files, beside those that registries and indexes are known to need; never
    /// with a value that looks like a credential.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub carried_parameters: Vec<String>,
    /// A shorter freshness lifetime is raised to this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_freshness: Option<HumanDuration>,
    /// A longer freshness lifetime is cut to this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_freshness: Option<HumanDuration>,
    /// How long an error (404, 405, 410, 414, 501) that states no lifetime is fresh; without it, not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub negative_ttl: Option<HumanDuration>,
    /// Whether a client's `no-cache`, `max-age` and `min-fresh` are passed over.
    #[serde(default)]
    pub ignore_client_no_cache: bool,
    /// Which responses with `Set-Cookie` are stored.
    #[serde(default)]
    pub store_set_cookie: SetCookie,
    /// Fields that replace `Cache-Control` for us, in order of precedence (RFC 9213), e.g. `CDN-Cache-Control`.
    #[serde(default)]
    pub targeted_cache_control: Vec<FieldName>,
    /// Whether a download goes on when its last client has left.
    #[serde(default)]
    pub on_abort: AbortRule,
    /// With `on_abort = "cancel"`: a download that is this far, in per cent, is finished all the same.
    #[serde(default = "default_finish")]
    pub on_abort_finish_percent: u8,
    /// Connections over which a large body comes; 1 to 8. More than one only helps where each connection gets only so much.
    #[serde(default = "default_parallel")]
    pub parallel: u8,
    /// What counts as large for `parallel`.
    #[serde(default = "default_parallel_min_size")]
    pub parallel_min_size: ByteSize,
    /// How long a stale response may stand in for an upstream that fails; without it there is no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale_if_error: Option<HumanDuration>,
    /// The parent proxy that its origins are asked through; without it that of `[origins]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<ParentProxy>,
    /// A file with `user:password` for `proxy`, so that no secret stands in the settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_credentials_file: Option<PathBuf>,
    /// PEM certificates of authorities that are trusted for it, beside those of this host and of `[origins]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// PEM certificate, with its chain, that is shown to the hosts of `urls` when they ask for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<PathBuf>,
    /// The PEM key of `client_certificate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_key: Option<PathBuf>,
    /// The networks whose clients may have what comes from here, of those that `access.clients` lets in; without it, all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clients: Option<Vec<Network>>,
    /// A file with `user:password` for its `urls`, and for those of its `file_urls` that are at the same server; of a registry it stands in
    /// `registry`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_file: Option<PathBuf>,
    /// With `kind = "registry"`: its names, its tags, its credentials.
    #[serde(default)]
    pub registry: RegistryRules,
}

impl Upstream {
    /// Refuses a base URL that one of the `others` has, too: the forward door could not tell whose rules hold for what is asked for by it.
    ///
    /// # Errors
    /// [`InvalidSettings::SharedUrl`].
    pub(super) fn shares_no_url(&self, others: &[Self]) -> Result<(), InvalidSettings> {
        for other in others {
            if let Some(url) = self.urls.iter().find(|url| other.urls.contains(url)) {
                return Err(InvalidSettings::SharedUrl {
                    url: url.clone().into(),
                    upstreams: (other.name.clone(), self.name.clone()),
                });
            }
        }
        Ok(())
    }

    /// Refuses credentials that nobody would read, or that stand in two places.
    ///
    /// # Errors
    /// [`InvalidSettings::Credentials`], [`InvalidSettings::CredentialsWithoutProxy`].
    pub(super) fn has_one_place_for_each_secret(&self) -> Result<(), InvalidSettings> {
        let is_registry = self.kind == Kind::Registry;
        if self.credentials_file.is_some() && (is_registry || self.has_user_in_url()) {
            return Err(InvalidSettings::Credentials {
                upstream: self.name.clone(),
                is_registry,
            });
        }
        if self.proxy_credentials_file.is_some() && !matches!(self.proxy, Some(ParentProxy::At(_))) {
            return Err(InvalidSettings::CredentialsWithoutProxy(self.name.clone()));
        }
        Ok(())
    }

    /// An upstream with the default kind and no overrides.
    pub fn new(name: UpstreamName, urls: Vec<BaseUrl>) -> Self {
        Self {
            name,
            urls,
            file_urls: Vec::new(),
            kind: Kind::Generic,
            intercept: false,
            rewrite_links: default_rewrite_links(),
            immutable: Vec::new(),
            digests: Vec::new(),
            redirect_hosts: None,
            carried_parameters: Vec::new(),
            min_freshness: None,
            max_freshness: None,
            negative_ttl: None,
            ignore_client_no_cache: false,
            store_set_cookie: SetCookie::Explicit,
            targeted_cache_control: Vec::new(),
            on_abort: AbortRule::Continue,
            on_abort_finish_percent: default_finish(),
            parallel: default_parallel(),
            parallel_min_size: default_parallel_min_size(),
            stale_if_error: None,
            proxy: None,
            proxy_credentials_file: None,
            ca_file: None,
            client_certificate: None,
            client_key: None,
            clients: None,
            credentials_file: None,
            registry: RegistryRules::default(),
        }
    }

    /// Whether it is asked with credentials of the operator's: then those that clients show are not for it.
    pub fn has_own_credentials(&self) -> bool {
        self.credentials_file.is_some() || self.has_user_in_url()
    }

    /// Whether a URL of its has `user:password@`.
    pub(crate) fn has_user_in_url(&self) -> bool {
        self.all_urls().any(has_user)
    }

    /// Whether the operator's credentials go with what reads `url`.
    pub(crate) fn shows_credentials_to(&self, url: &Url) -> bool {
        let is_below = |base: &Url| path_below(url.path(), base.path()).is_some();
        let is_at_server = || self.urls.iter().any(|base| base.url().origin() == url.origin());
        has_user(url)
            || self.credentials_file.is_some()
                && is_at_server()
                && self
                    .all_urls()
                    .any(|base| base.origin() == url.origin() && is_below(base))
    }

    /// Whether a client at `address` may have what comes from here.
    pub fn allows(&self, address: IpAddr) -> bool {
        self.clients
            .as_deref()
            .is_none_or(|networks| any_contains(networks, address))
    }

    /// Whether who may have what comes from `other` may have what comes from here, too: so that equal content may be served
    /// under either name.
    pub fn allows_whom(&self, other: &Self) -> bool {
        self.clients.is_none() || self.clients == other.clients
    }

    /// What the operator knows about the content at `path`, relative to the base URL.
    pub fn overrides(&self, path: &str) -> Overrides {
        let signed = |duration: Option<HumanDuration>| {
            duration.map(|given| SignedDuration::try_from(given.get()).unwrap_or(SignedDuration::MAX))
        };
        let named = (self.kind == Kind::Registry)
            .then(|| self.registry.name_lifetime(path))
            .flatten();
        let metadata = (self.kind == Kind::Release).then(|| tuf::lasting(path)).flatten();
        let current = (metadata == Some(Lasting::Current)).then_some(tuf::CURRENT);
        let most = [signed(self.max_freshness), current].into_iter().flatten().min();
        Overrides {
            immutable: self.is_immutable(path) || metadata == Some(Lasting::Forever),
            min_freshness: signed(self.min_freshness).or(named),
            max_freshness: most.or(named),
            serve_gone: named.is_some() && self.registry.serve_gone,
            negative_ttl: signed(self.negative_ttl),
            ignore_client_no_cache: self.ignore_client_no_cache,
            set_cookie: self.store_set_cookie,
            targeted_fields: self
                .targeted_cache_control
                .iter()
                .map(|field| field.0.clone())
                .collect(),
            stale_if_error: signed(self.stale_if_error),
            ..Overrides::default()
        }
    }

    /// All hosts and folders that belong to it.
    pub fn all_urls(&self) -> impl Iterator<Item = &Url> {
        self.urls.iter().chain(&self.file_urls).map(BaseUrl::url)
    }

    /// What becomes of a download whose last client has left.
    pub fn on_abort(&self) -> OnAbort {
        match self.on_abort {
            AbortRule::Continue => OnAbort::Continue,
            AbortRule::Cancel => OnAbort::Cancel {
                finish_from_percent: self.on_abort_finish_percent,
            },
        }
    }

    /// Whether the file at `path`, relative to the base URL, lists digests of those beside it.
    pub fn is_sidecar(&self, path: &str) -> bool {
        let name = path.rsplit('/').next().unwrap_or(path);
        self.digests.iter().any(|glob| {
            let is_about_paths = glob.0.as_str().contains('/');
            glob.0.matches(if is_about_paths { path } else { name })
        })
    }

    /// Whether the content at `path`, relative to the base URL, is declared to never change.
    pub fn is_immutable(&self, path: &str) -> bool {
        self.immutable.iter().any(|glob| glob.0.matches(path))
    }
}

/// Whether there is `user@` or `user:password@` in it.
fn has_user(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some()
}

impl FromStr for Upstream {
    type Err = String;

    /// Reads the flag's form `NAME=URL[,URL…]`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, urls) = text
            .split_once('=')
            .ok_or_else(|| format!("`{text}` is not an upstream: expected NAME=URL[,URL…]"))?;
        let name = UpstreamName::try_from(name.to_owned())?;
        let urls = urls
            .split(',')
            .map(|url| BaseUrl::try_from(url.to_owned()))
            .collect::<Result<_, _>>()?;
        Ok(Self::new(name, urls))
    }
}

/// What an upstream serves, and so what its URLs can teach about digests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Debian packages.
    Packages,
    /// A signed release repository (TUF).
    Release,
    /// An OCI registry.
    Registry,
    /// A Python package index.
    Pypi,
    /// A JavaScript package index.
    Npm,
    /// A Rust package index.
    Cargo,
    /// Plain HTTP.
    #[default]
    Generic,
}

/// The name of an upstream: letters, digits, `.`, `_` and `-`; it stands in paths, logs and metrics.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UpstreamName(String);

impl UpstreamName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for UpstreamName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        // `/http/…`, `/https/…`, `/v2/…` and `/-/…` are doors of their own.
        if matches!(name.as_str(), "http" | "https" | "v2" | "-" | "." | "..") {
            return Err(format!("`{name}` is reserved and cannot name an upstream"));
        }
        if name.is_empty() || name.len() > 64 || !name.bytes().all(fits) {
            return Err(format!(
                "`{name}` cannot name an upstream: expected 1 to 64 letters, digits, `.`, `_` or `-`"
            ));
        }
        Ok(Self(name))
    }
}

impl From<UpstreamName> for String {
    fn from(name: UpstreamName) -> Self {
        name.0
    }
}

impl fmt::Display for UpstreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An absolute `http` or `https` URL whose path ends with `/`, without query and fragment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BaseUrl(Url);

impl BaseUrl {
    /// The URL.
    pub const fn url(&self) -> &Url {
        &self.0
    }
}

impl TryFrom<String> for BaseUrl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        // Without what may be a password.
        let mut url = Url::parse(&text).map_err(|cause| {
            let shown = text.rsplit('@').next().unwrap_or_default();
            format!("`{shown}` is not an absolute URL ({cause})")
        })?;
        let shown = redact::url(&url);
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err(format!(
                "`{shown}` is not an upstream URL: expected http:// or https:// and a host"
            ));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(format!(
                "`{shown}` cannot be a base URL: it has a query or a fragment"
            ));
        }
        if !url.path().ends_with('/') {
            url.set_path(&format!("{}/", url.path()));
        }
        Ok(Self(url))
    }
}

impl From<BaseUrl> for String {
    /// For printing: a password is hidden.
    fn from(base: BaseUrl) -> Self {
        redact::url(&base.0)
    }
}

/// Who asks us for an index should ask us for the files, too.
const fn default_rewrite_links() -> bool {
    true
}

/// Half: what is left then costs less than what came.
const fn default_finish() -> u8 {
    50
}

/// The most connections for one body: each holds a segment in memory.
pub(super) const MOST_PARALLEL: u8 = 8;

const fn default_parallel() -> u8 {
    1
}

/// Below this, starting several connections takes longer than they save.
const fn default_parallel_min_size() -> ByteSize {
    ByteSize::mib(64)
}

/// The name of a header field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FieldName(HeaderName);

impl TryFrom<String> for FieldName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        HeaderName::try_from(text.as_str())
            .map(Self)
            .map_err(|_not_a_token| format!("`{text}` is not the name of a header field"))
    }
}

impl From<FieldName> for String {
    fn from(name: FieldName) -> Self {
        name.0.as_str().to_owned()
    }
}

/// A shell-like pattern over a path: `*` and `?` within and across segments, `[…]` sets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PathGlob(glob::Pattern);

impl TryFrom<String> for PathGlob {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        glob::Pattern::new(&text)
            .map(Self)
            .map_err(|cause| format!("`{text}` is not a glob: {cause}"))
    }
}

impl From<PathGlob> for String {
    fn from(glob: PathGlob) -> Self {
        glob.0.as_str().to_owned()
    }
}
