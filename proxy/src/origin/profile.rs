//! One upstream's way of asking: its parent proxies, its TLS, its connections.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use http::{HeaderValue, uri::Authority};
use kato_shared::redact;
use tokio::time::Instant;
use url::{Position, Url};

use super::{
    OriginError,
    auth::Auth,
    connect::{Connector, End},
    outgoing::Way,
    parent::Parents,
    pool::{Bounds, Destination},
    tls::Tls,
};
use crate::settings::NoProxy;

/// Origins whose connections are kept; a redirect chain may invent hosts.
const MAX_DESTINATIONS: usize = 256;

/// See the module.
#[derive(Debug)]
pub(super) struct Profile {
    pub(super) parents: Parents,
    pub(super) tls: Tls,
    /// For registries.
    pub(super) auth: Option<Auth>,
    /// (host, port) of the upstream's `urls`: they alone see its client certificate.
    pub(super) own: HashSet<(String, u16)>,
    /// Hosts that redirects may lead to beside `own`, by the rules of `NO_PROXY`; `None` for all.
    pub(super) redirects: Option<NoProxy>,
    /// (host, port) of upstreams that fewer clients may use: content from there must not come to all under this one's name.
    pub(super) closed: HashSet<(String, u16)>,
    pub(super) connector: Connector,
    pub(super) bounds: Bounds,
    pub(super) destinations: Mutex<HashMap<String, Arc<Destination>>>,
}

/// The host, in lower case, and the port of `url`.
pub(super) fn place(url: &Url) -> Option<(String, u16)> {
    Some((url.host_str()?.to_ascii_lowercase(), url.port_or_known_default()?))
}

impl Profile {
    /// The connections to `url`'s origin.
    ///
    /// # Errors
    /// [`OriginError::BadRedirect`] when it has no host that HTTP can name.
    pub(super) fn destination(&self, url: &Url) -> Result<Arc<Destination>, OriginError> {
        if url.username().is_empty() && url.password().is_none() {
            self.known(&url[Position::BeforeScheme..Position::AfterPort], url)
        } else {
            let authority = &url[Position::BeforeHost..Position::AfterPort];
            self.known(&format!("{}://{authority}", url.scheme()), url)
        }
    }

    /// Whether a redirect may lead to `url`; its address is judged apart.
    pub(super) fn may_redirect_to(&self, url: &Url) -> bool {
        let Some(place) = place(url) else {
            return false;
        };
        let is_listed = |listed: &NoProxy| listed.exempts(&place.0, place.1);
        self.own.contains(&place)
            || !self.closed.contains(&place) && self.redirects.as_ref().is_none_or(is_listed)
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

    fn known(&self, key: &str, url: &Url) -> Result<Arc<Destination>, OriginError> {
        let mut destinations = self.lock();
        if let Some(known) = destinations.get(key) {
            return Ok(Arc::clone(known));
        }
        let made = Arc::new(self.make(url)?);
        destinations.insert(key.to_owned(), Arc::clone(&made));
        Ok(made)
    }

    fn make(&self, url: &Url) -> Result<Destination, OriginError> {
        let bad = || OriginError::BadRedirect {
            url: redact::url(url),
            location: redact::url(url),
        };
        let (host, port) = url.host_str().zip(url.port_or_known_default()).ok_or_else(bad)?;
        let authority: Authority = url[Position::BeforeHost..Position::AfterPort]
            .parse()
            .map_err(|_no_authority| bad())?;
        let is_tls = url.scheme() == "https";
        let tls = if self.own.contains(&(host.to_ascii_lowercase(), port)) {
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
