//! What a request asks for: which upstream, and which target there.
//!
//! These doors lead to the same targets, and so to the same stored responses:
//! * `forward`: absolute-form, `GET http://pkg.example/a HTTP/1.1`, as a forward proxy gets it;
//! * `mirror`: `/<upstream>/a`, `/<scheme>/<host>/a` and `/~<upstream>/<scheme>/<host>/a`, as a client without proxy settings asks;
//! * `registry`: `/v2/…`, as a container client asks a registry.
//!
//! Another, `CONNECT pkg.example:443`, leads to the first where the upstream says `intercept = true`; else it is tunnelled and not cached.
//!
//! Closed world: a host that no upstream names is refused, whatever the door. The name in a request is a key to
//! look up, never an address to dial. A path that a server could read as leading out of itself is refused (`spelling`), and what could
//! be another upstream's on the same server is for those alone who may use both (`gates`).

mod forward;
mod gates;
mod mirror;
mod registry;
mod spelling;

pub(crate) use gates::is_same_server;
pub(crate) use registry::{registry_manifest, registry_sibling};
pub(crate) use spelling::{Reading, below as path_below};

use std::{
    borrow::Cow,
    fmt::Write as _,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use http::{Method, Uri, uri::Authority};
use kato_shared::Digest;
use url::{Position, Url};

use crate::{
    ecosystem::known_digest,
    key::CacheKey,
    recent::{Held, Recent},
    registry::{Place, Refused, is_door},
    settings::{BaseUrl, Kind, Settings, Upstream, UpstreamName},
};

/// Where requests may go.
#[derive(Debug, Clone)]
pub struct Router {
    upstreams: Arc<[Arc<Upstream>]>,
    /// The registry of requests at the door `/v2/` that name none.
    default_registry: Option<UpstreamName>,
    /// Targets by request target: what was asked for a moment ago is often asked for again, and reading URLs costs more
    /// than all the rest of a hit.
    known: Arc<Mutex<Recent<Arc<str>, Arc<Target>>>>,
}

/// The most bytes of [`Router`]'s memory, roughly.
const KNOWN_LIMIT: usize = 4 << 20;
/// What a target is taken to weigh beside its texts, each about as long as the request target.
const TARGET_OVERHEAD: usize = 512;

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// To a target of an upstream.
    Target(Arc<Target>),
    /// To the door `/v2/` itself.
    RegistryBase,
    /// Into TLS that we open: what comes out of it is about this host and port.
    Intercept {
        /// The host, of an upstream that is opened.
        host: String,
        /// The port.
        port: u16,
    },
    /// Through a tunnel to this host and port.
    Tunnel {
        /// The host, which an upstream names.
        host: String,
        /// The port.
        port: u16,
        /// The upstream that is there, and all others that have a say in what is on that server.
        upstreams: Vec<Arc<Upstream>>,
    },
}

/// One resource of one upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The upstream.
    pub upstream: Arc<Upstream>,
    /// The same resource at each mirror, in order. Never empty; the first is the target URI of the key.
    pub candidates: Vec<Url>,
    /// The path below the base URL, for rules of the settings.
    pub path: String,
    /// The cache key for retrieval.
    pub key: CacheKey,
    /// The digest of its content, where the URL tells.
    pub digest: Option<Digest>,
    /// Which of a registry's things it is, where the upstream is one.
    pub registry: Option<Place>,
    /// Other upstreams that it may be of: a host of files may be that of several, and the request does not say of which. What their
    /// documents teach about it counts where they agree.
    pub shared_with: Vec<Arc<Upstream>>,
    /// Other upstreams on the same server whose content it could be: they have a say in who may have it.
    pub gates: Vec<Arc<Upstream>>,
}

impl Target {
    /// All upstreams whose documents may teach about it.
    pub fn owners(&self) -> impl Iterator<Item = &Upstream> {
        let others = self.shared_with.iter().map(Arc::as_ref);
        std::iter::once(&*self.upstream).chain(others)
    }

    /// Whether it is asked for with credentials of the operator's.
    pub(crate) fn is_asked_in_the_operators_name(&self) -> bool {
        self.candidates
            .iter()
            .any(|url| self.upstream.shows_credentials_to(url))
    }

    /// All upstreams that must let a client pass.
    pub fn keepers(&self) -> impl Iterator<Item = &Upstream> {
        let gates = self.gates.iter().map(Arc::as_ref);
        std::iter::once(&*self.upstream).chain(gates)
    }
}

/// Why a request has no route.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// Deny by default.
    #[error("`{host}` is not a host of a configured upstream")]
    UnknownHost {
        /// The host, with its port where it has one.
        host: String,
    },
    /// The first part of the path is not an upstream.
    #[error("no upstream is named `{name}`")]
    UnknownUpstream {
        /// What was taken for a name.
        name: String,
    },
    /// The target leaves the base URL, could be read as doing so, or is no URL.
    #[error("`{target}` is not a target below the upstream's base URL")]
    BadTarget {
        /// The target.
        target: String,
    },
    /// The door `/v2/` leads nowhere with this.
    #[error(transparent)]
    Registry(#[from] Refused),
    /// The door `/v2/` is told of two registries at once, of which another server may read the other one.
    #[error("the request names a registry in `ns` more than once")]
    TwoRegistries,
    /// CONNECT to a port that no upstream uses.
    #[error("`{authority}` may not be tunnelled to: its upstream is not at that port")]
    TunnelPort {
        /// Host and port.
        authority: String,
    },
}

impl Router {
    /// A router for the upstreams of `settings`.
    pub fn new(settings: &Settings) -> Self {
        Self {
            upstreams: settings.upstreams.iter().cloned().map(Arc::new).collect(),
            default_registry: settings.registry.default.clone(),
            known: Arc::default(),
        }
    }

    /// The route of a request line.
    ///
    /// # Errors
    /// [`RouteError`].
    pub fn route(&self, method: &Method, uri: &Uri) -> Result<Route, RouteError> {
        if method == Method::CONNECT {
            // "CONNECT uses … only the host and port number of the tunnel destination" (RFC 9112 §3.2.3).
            let is_authority_form = uri.scheme().is_none() && uri.path_and_query().is_none();
            let authority = uri.authority().filter(|_| is_authority_form);
            return self.tunnel(authority.ok_or_else(|| bad(uri))?);
        }
        let mut whole = String::new();
        let asked = match (uri.scheme_str(), uri.path_and_query()) {
            (None, Some(path)) if uri.authority().is_none() => path.as_str(),
            _ => {
                // Writing to a `String` cannot fail.
                let _infallible = write!(whole, "{uri}");
                &whole
            }
        };
        let is_registry = is_door(uri);
        // What may be pulled may not be pushed: only of requests that read is the target all that counts.
        let is_read = matches!(*method, Method::GET | Method::HEAD);
        if (is_read || !is_registry)
            && let Some(known) = self.known().get(asked)
        {
            return Ok(Route::Target(Arc::clone(&**known)));
        }
        let target = match (uri.scheme_str(), uri.authority()) {
            (Some(scheme), Some(authority)) => forward::target(&self.upstreams, scheme, authority, uri)?,
            _ if is_registry => {
                let default = self.default_registry.as_ref();
                match registry::target(&self.upstreams, default, (method, uri))? {
                    registry::Found::Base => return Ok(Route::RegistryBase),
                    registry::Found::Target(target) => *target,
                }
            }
            _ => {
                let mut target = mirror::target(&self.upstreams, uri)?;
                if let Some(place) = &mut target.registry {
                    place.mirror_path = Some(uri.path().to_owned());
                }
                target
            }
        };
        let gates = target
            .candidates
            .iter()
            .flat_map(|url| gates::of_target(&self.upstreams, &target.upstream, url))
            .collect();
        let target = Arc::new(Target { gates, ..target });
        self.remember(asked, &target);
        Ok(Route::Target(target))
    }

    /// The repository that a client at the door `/v2/` calls `name`, as `UPSTREAM/REPOSITORY`.
    pub(crate) fn repository(&self, name: &str) -> Option<String> {
        let uri: Uri = format!("/v2/{name}/tags/list").parse().ok()?;
        let found = registry::target(
            &self.upstreams,
            self.default_registry.as_ref(),
            (&Method::GET, &uri),
        );
        match found.ok()? {
            registry::Found::Target(target) => {
                let place = target.registry.as_ref()?;
                (uri.query().is_none() && !place.repository.is_empty())
                    .then(|| format!("{}/{}", target.upstream.name, place.repository))
            }
            registry::Found::Base => None,
        }
    }

    fn remember(&self, asked: &str, target: &Arc<Target>) {
        let weight = TARGET_OVERHEAD + asked.len() * (4 + target.candidates.len());
        let mut known = self.known();
        if weight <= KNOWN_LIMIT / 16 {
            known.insert(asked.into(), Arc::new(Held::new(Arc::clone(target))), weight);
            while known.weight() > KNOWN_LIMIT && known.push_out() {}
        }
    }

    fn known(&self) -> MutexGuard<'_, Recent<Arc<str>, Arc<Target>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the host and port of `uri` are an upstream's.
    pub fn names(&self, uri: &Uri) -> bool {
        Url::parse(&uri.to_string())
            .is_ok_and(|url| bases(&self.upstreams).any(|(_, base)| forward::is_same_host(base, &url)))
    }

    /// Whether `url` is at the host and port of an upstream.
    pub fn serves(&self, url: &Url) -> bool {
        matches!(url.scheme(), "http" | "https")
            && bases(&self.upstreams).any(|(_, base)| forward::is_same_host(base, url))
    }

    /// The mirror path of `url`, query and fragment as they are, for a link in a document of `upstream`; `None` where no upstream has
    /// that host. Where several have, the path says which is meant.
    ///
    /// Without our own host, so that the same answer is right under every name by which clients know this server.
    pub fn mirror_path(&self, url: &Url, upstream: &Upstream) -> Option<String> {
        if !self.serves(url) {
            return None;
        }
        let owners = forward::owners(&self.upstreams, url);
        let is_one_of_several =
            owners.len() > 1 && owners.iter().any(|(owner, _)| owner.name == upstream.name);
        let door = if is_one_of_several {
            format!("/{}{}", mirror::OF_UPSTREAM, upstream.name)
        } else {
            String::new()
        };
        let authority = &url[Position::BeforeHost..Position::AfterPort];
        let rest = &url[Position::BeforePath..];
        Some(format!("{door}/{}/{authority}{rest}", url.scheme()))
    }

    fn tunnel(&self, authority: &Authority) -> Result<Route, RouteError> {
        if authority.as_str().contains('@') {
            return Err(RouteError::BadTarget {
                target: authority.host().to_owned(),
            });
        }
        let host = authority.host().to_ascii_lowercase();
        let port = authority.port_u16().unwrap_or(443);
        let of_host: Vec<_> = bases(&self.upstreams)
            .filter(|(_, base)| base.host_str() == Some(&host))
            .collect();
        if of_host.is_empty() {
            return Err(RouteError::UnknownHost {
                host: authority.to_string(),
            });
        }
        let is_opened = |(upstream, base): &(&Arc<Upstream>, &Url)| {
            upstream.intercept && base.scheme() == "https" && base.port_or_known_default() == Some(port)
        };
        if of_host.iter().any(is_opened) {
            return Ok(Route::Intercept { host, port });
        }
        // 443 is the one port that TLS is expected at; another must be an upstream's own.
        of_host
            .iter()
            .find(|(_, base)| port == 443 || base.port_or_known_default() == Some(port))
            .map(|(upstream, _)| {
                let mut upstreams = gates::of_tunnel(&self.upstreams, &host, port);
                upstreams.retain(|other| other.name != upstream.name);
                upstreams.insert(0, Arc::clone(upstream));
                Route::Tunnel {
                    host: host.clone(),
                    port,
                    upstreams,
                }
            })
            .ok_or_else(|| RouteError::TunnelPort {
                authority: authority.to_string(),
            })
    }
}

/// Every base URL with its upstream.
fn bases(upstreams: &[Arc<Upstream>]) -> impl Iterator<Item = (&Arc<Upstream>, &Url)> {
    upstreams
        .iter()
        .flat_map(|upstream| upstream.all_urls().map(move |base| (upstream, base)))
}

/// The target `suffix` (path and query below the base URLs) of `upstream`.
fn below(upstream: &Arc<Upstream>, suffix: &str) -> Result<Target, RouteError> {
    let bases: Vec<&Url> = upstream.urls.iter().map(BaseUrl::url).collect();
    below_bases(upstream, &bases, suffix)
}

/// The target `suffix` at each of `bases`, which are the upstream's.
fn below_bases(upstream: &Arc<Upstream>, bases: &[&Url], suffix: &str) -> Result<Target, RouteError> {
    let bad = || RouteError::BadTarget {
        target: suffix.to_owned(),
    };
    let candidates = bases
        .iter()
        .map(|base| {
            // With the dot in front it is nothing but a path, and slashes at its front stay: `//a` and `/a` are two resources
            // (RFC 3986 §6.2.2 does not make them one).
            let joined = base.join(&format!("./{suffix}")).ok();
            joined
                // Dot segments are resolved by now: what they leave must still lie below the base.
                .filter(|url| url.path().starts_with(base.path()) && forward::is_same_host(base, url))
                .ok_or_else(bad)
        })
        .collect::<Result<Vec<_>, _>>()?;
    // The path that is asked for, not the one that was written: `x.deb/../InRelease` gets the rules of `InRelease`.
    let path = candidates
        .first()
        .zip(bases.first())
        .and_then(|(first, base)| first.path().strip_prefix(base.path()))
        .unwrap_or_default()
        .to_owned();
    finish(upstream, candidates, path)
}

fn finish(upstream: &Arc<Upstream>, candidates: Vec<Url>, path: String) -> Result<Target, RouteError> {
    // Those that were written plainly are resolved by now; what is left is for some server to find.
    if candidates.iter().any(|url| Reading::of(url.path()).is_none()) {
        return Err(RouteError::BadTarget { target: path });
    }
    let key = candidates
        .first()
        .and_then(|first| without_credentials(first).as_str().parse::<Uri>().ok())
        .and_then(|uri| CacheKey::new(&Method::GET, &uri).ok())
        .ok_or_else(|| RouteError::BadTarget { target: path.clone() })?;
    Ok(Target {
        upstream: Arc::clone(upstream),
        candidates,
        digest: known_digest(upstream.kind, &path),
        registry: (upstream.kind == Kind::Registry).then(|| Place::of(&path)),
        shared_with: Vec::new(),
        gates: Vec::new(),
        path,
        key,
    })
}

/// How the cache keys begin of what stands below `base`, of the settings.
pub(crate) fn keys_below(base: &Url) -> Option<String> {
    let uri = without_credentials(base).as_str().parse::<Uri>().ok()?;
    Some(CacheKey::new(&Method::GET, &uri).ok()?.to_string())
}

/// The URL as clients write it: credentials of the settings are for the upstream alone, and no part of the key.
fn without_credentials(url: &Url) -> Cow<'_, Url> {
    if url.username().is_empty() && url.password().is_none() {
        return Cow::Borrowed(url);
    }
    let mut plain = url.clone();
    // Only URLs without a host refuse this; such are no base URLs.
    let _host_is_there = plain.set_username("").and_then(|()| plain.set_password(None));
    Cow::Owned(plain)
}

fn bad(uri: &Uri) -> RouteError {
    RouteError::BadTarget {
        target: uri.to_string(),
    }
}

#[cfg(test)]
mod tests;
