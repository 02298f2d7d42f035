//! One upstream's way of asking: its parent proxies, its TLS, its connections.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use http::{HeaderValue, Method, uri::Authority};
use kato_shared::redact;
use tokio::time::Instant;
use url::{Position, Url};

use super::{
    OriginError, OriginRequest,
    auth::Auth,
    connect::{Connector, End},
    outgoing::Way,
    parent::{Parents, basic_of},
    pool::{Bounds, Destination},
    tls::Tls,
};
use crate::{
    route::{Reading, is_same_server, path_below},
    seldom::Seldom,
    settings::NoProxy,
};

/// Origins whose connections are kept; a redirect chain may invent hosts.
const MAX_DESTINATIONS: usize = 256;

/// See the module.
#[derive(Debug)]
pub(super) struct Profile {
    pub(super) parents: Parents,
    pub(super) tls: Tls,
    /// For registries.
    pub(super) auth: Option<Auth>,
    /// Of an upstream that is none: the operator's credentials, for the origins of its `urls` below its bases.
    pub(super) basic: Option<(HeaderValue, Vec<url::Origin>)>,
    /// (host, port) of the upstream's `urls`: they alone see its client certificate.
    pub(super) own: HashSet<(String, u16)>,
    /// All its base URLs: what is asked for in the operator's name is below them.
    pub(super) bases: Vec<Url>,
    /// Hosts that redirects may lead to beside `own`, by the rules of `NO_PROXY`; `None` for all.
    pub(super) redirects: Option<NoProxy>,
    /// Base URLs of upstreams that fewer clients may use: content from there must not come to all under this one's name.
    pub(super) closed: Vec<Url>,
    /// Who it is asked as, for people; `None` for nobody in particular.
    pub(super) account: Option<String>,
    /// Where it is said that the upstream turns us away.
    pub(super) turned_away: Seldom,
    pub(super) connector: Connector,
    pub(super) bounds: Bounds,
    pub(super) destinations: Mutex<HashMap<String, Arc<Destination>>>,
}

/// The host, in lower case, and the port of `url`.
pub(super) fn place(url: &Url) -> Option<(String, u16)> {
    Some((url.host_str()?.to_ascii_lowercase(), url.port_or_known_default()?))
}

impl Profile {
    /// The connections to `url`'s origin; those `as_us` show a client certificate, where there is one.
    ///
    /// # Errors
    /// [`OriginError::BadRedirect`] when it has no host that HTTP can name.
    pub(super) fn destination(&self, url: &Url, as_us: bool) -> Result<Arc<Destination>, OriginError> {
        let as_us = as_us || Arc::ptr_eq(&self.tls.own, &self.tls.elsewhere);
        if as_us && url.username().is_empty() && url.password().is_none() {
            self.known(&url[Position::BeforeScheme..Position::AfterPort], (url, as_us))
        } else {
            let authority = &url[Position::BeforeHost..Position::AfterPort];
            let who = if as_us { "" } else { "anybody@" };
            self.known(&format!("{}://{who}{authority}", url.scheme()), (url, as_us))
        }
    }

    /// Whether `request` is one that we make in the operator's name: it reads, and what the upstream's base URLs are about. Whoever may
    /// use this cache may not write with the operator's credentials, nor read what they open elsewhere.
    pub(super) fn speaks_for_us(&self, request: &OriginRequest) -> bool {
        matches!(request.method, Method::GET | Method::HEAD)
            && request.candidates.iter().all(|url| self.is_below_own(url))
    }

    /// Whether `url` is below one of the upstream's base URLs, however it is read.
    pub(super) fn is_below_own(&self, url: &Url) -> bool {
        let is_above =
            |base: &Url| base.origin() == url.origin() && path_below(url.path(), base.path()).is_some();
        self.bases.iter().any(is_above) && Reading::of(url.path()).is_some()
    }

    /// The operator's credentials for `url`, where they are shown there: those of the URL itself, or those of the upstream's file.
    pub(super) fn basic(&self, url: &Url) -> Option<HeaderValue> {
        let of_file = || {
            let (basic, origins) = self.basic.as_ref()?;
            origins.contains(&url.origin()).then(|| basic.clone())
        };
        basic_of(url).or_else(of_file).filter(|_| self.is_below_own(url))
    }

    /// Whether a redirect may lead to `url`; its address is judged apart.
    pub(super) fn may_redirect_to(&self, url: &Url) -> bool {
        let Some(place) = place(url) else {
            return false;
        };
        let is_listed = |listed: &NoProxy| listed.exempts(&place.0, place.1);
        let mut closed = self.closed.iter().filter(|base| is_same_server(base, url));
        if self.own.contains(&place) {
            return !closed.any(|base| self.is_rather_below(base, url));
        }
        closed.next().is_none() && self.redirects.as_ref().is_none_or(is_listed)
    }

    /// Whether `url` could be read as standing below `closed`, and less deep below a base of our own.
    fn is_rather_below(&self, closed: &Url, url: &Url) -> bool {
        let depth = |base: &Url| Reading::of(base.path()).map_or(0, |base| base.depth());
        let of_us = self.bases.iter().filter(|base| is_same_server(base, url));
        let of_us = of_us.filter(|base| path_below(url.path(), base.path()).is_some());
        let is_deeper = of_us.map(depth).max().is_none_or(|own| depth(closed) > own);
        let is_below = Reading::of(url.path())
            .zip(Reading::of(closed.path()))
            .is_none_or(|(url, closed)| url.is_below(&closed));
        is_deeper && is_below
    }

    /// Closes what has been idle for too long.
    pub(super) fn sweep(&self, now: Instant) {
        let mut destinations = self.lock();
        let is_crowded = destinations.len() > MAX_DESTINATIONS;
        destinations.retain(|_, destination| {
            let is_alive = destination.sweep(now);
            // Forgetting one costs nothing but what it learnt; one in use lives on with its requests.
            is_alive || !is_crowded
        });
    }

    fn known(&self, key: &str, (url, as_us): (&Url, bool)) -> Result<Arc<Destination>, OriginError> {
        let mut destinations = self.lock();
        if let Some(known) = destinations.get(key) {
            return Ok(Arc::clone(known));
        }
        let made = Arc::new(self.make(url, as_us)?);
        destinations.insert(key.to_owned(), Arc::clone(&made));
        Ok(made)
    }

    fn make(&self, url: &Url, as_us: bool) -> Result<Destination, OriginError> {
        let bad = || OriginError::BadRedirect {
            url: redact::url(url),
            location: redact::url(url),
        };
        let (host, port) = url.host_str().zip(url.port_or_known_default()).ok_or_else(bad)?;
        let authority: Authority = url[Position::BeforeHost..Position::AfterPort]
            .parse()
            .map_err(|_no_authority| bad())?;
        let is_tls = url.scheme() == "https";
        let tls = if as_us && self.own.contains(&(host.to_ascii_lowercase(), port)) {
            &self.tls.own
        } else {
            &self.tls.elsewhere
        };
        let way = Way {
            host: HeaderValue::from_str(authority.as_str()).map_err(|_no_value| bad())?,
            authority,
            end: End {
                host: host.to_owned(),
                port,
            },
            tls: is_tls.then(|| Arc::clone(tls)),
            parent: self.parents.parent(is_tls, host, port).cloned(),
            parent_tls: Arc::clone(&self.tls.parent),
        };
        Ok(Destination::new(way, self.connector.clone(), self.bounds))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Destination>>> {
        self.destinations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
