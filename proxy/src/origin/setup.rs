//! What follows from the settings, made once: profiles of upstreams, the connector, the guard.

use std::{
    collections::HashSet,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use http::HeaderValue;
use tokio::{sync::Semaphore, time::Instant};
use tokio_util::task::TaskTracker;
use url::Url;

use super::{
    OriginError,
    auth::Auth,
    bulk::WIDE_AT_ONCE,
    connect::Connector,
    dial::Winners,
    dns::{Lifetimes, Resolver, SystemLookup},
    guard::Guard,
    parent::{Parents, credentials_of},
    pool::Bounds,
    profile::{Profile, place},
    tls::Tls,
};
use crate::{
    quick_map::QuickMap,
    seldom::Seldom,
    settings::{Kind, NoProxy, Settings, Upstream},
};

/// See the module.
#[derive(Debug)]
pub(super) struct Setup {
    profiles: QuickMap<String, Profile>,
    /// For names that no upstream has; routes lead to upstreams, so it is not used.
    fallback: Profile,
}

impl Setup {
    /// # Errors
    /// [`OriginError::Tls`], [`OriginError::File`].
    pub(super) fn new(settings: &Settings) -> Result<Self, OriginError> {
        Self::with(settings, Resolver::new(SystemLookup, lifetimes(settings)))
    }

    /// The setup after this one: what is known about names stays known, since the name service may be dead.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub(super) fn next(&self, settings: &Settings) -> Result<Self, OriginError> {
        Self::with(settings, self.connector().resolver.with(lifetimes(settings)))
    }

    /// [`Self::new`], with a resolver.
    pub(super) fn with(settings: &Settings, resolver: Resolver) -> Result<Self, OriginError> {
        let mut rules = Vec::new();
        for upstream in &settings.upstreams {
            rules.push((upstream, Parents::of(&settings.origins, upstream)?));
        }
        let urls = settings.upstreams.iter().flat_map(Upstream::all_urls);
        let named = rules.iter().flat_map(|(_, parents)| parents.named());
        let named = named.chain(settings.upstreams.iter().flat_map(token_services));
        let connector = Connector {
            guard: Guard::new(urls, named).with_rules_of(&settings.upstreams),
            resolver,
            winners: Winners::default(),
            patience: settings.limits.connect_timeout.get(),
            tasks: TaskTracker::new(),
            wide_pieces: Arc::new(Semaphore::new(WIDE_AT_ONCE)),
        };
        let common = Tls::common(&settings.origins)?;
        let bounds = bounds(settings);
        let profile = |parents, (tls, auth, basic, account), (own, bases, redirects, closed)| Profile {
            parents,
            account,
            turned_away: Seldom::new(),
            tls,
            auth,
            basic,
            own,
            bases,
            redirects,
            closed,
            connector: connector.clone(),
            bounds,
            destinations: Mutex::default(),
        };
        let mut profiles = QuickMap::default();
        for (upstream, parents) in rules {
            let tls = Tls::of(&common, &settings.origins, upstream)?;
            let own = upstream.urls.iter().filter_map(|base| place(base.url()));
            let redirects = upstream.redirect_hosts.as_deref();
            let redirects = redirects.map(|hosts| NoProxy::parse(hosts.iter().map(String::as_str)));
            profiles.insert(
                upstream.name.to_string(),
                profile(
                    parents,
                    (tls, Auth::of(upstream)?, basic(upstream)?, account(upstream)),
                    (
                        own.collect(),
                        upstream.all_urls().cloned().collect(),
                        redirects,
                        closed_to(upstream, settings),
                    ),
                ),
            );
        }
        let fallback = profile(
            Parents::default(),
            (common, None, None, None),
            (HashSet::new(), Vec::new(), None, Vec::new()),
        );
        Ok(Self { profiles, fallback })
    }

    /// Whether files stand behind these settings, which may change while the settings do not.
    pub(super) fn reads_files(settings: &Settings) -> bool {
        let has_files = |upstream: &Upstream| {
            [
                &upstream.proxy_credentials_file,
                &upstream.ca_file,
                &upstream.client_certificate,
                &upstream.credentials_file,
            ]
            .iter()
            .any(|file| file.is_some())
                || upstream.registry.reads_files()
        };
        settings.origins.ca_file.is_some() || settings.upstreams.iter().any(has_files)
    }

    /// The way of asking for the upstream of this name.
    pub(super) fn profile(&self, upstream: &str) -> &Profile {
        self.profiles.get(upstream).unwrap_or(&self.fallback)
    }

    pub(super) const fn connector(&self) -> &Connector {
        &self.fallback.connector
    }

    /// Closes what has been idle for too long.
    pub(super) fn sweep(&self, now: Instant) {
        self.profiles.values().for_each(|profile| profile.sweep(now));
    }
}

/// The operator's credentials for an upstream from its file, and the origins that see them.
fn basic(upstream: &Upstream) -> Result<Option<(HeaderValue, Vec<url::Origin>)>, OriginError> {
    let Some(path) = &upstream.credentials_file else {
        return Ok(None);
    };
    let origins = upstream.urls.iter().map(|base| base.url().origin()).collect();
    Ok(Some((credentials_of("credentials_file", path)?, origins)))
}

/// How many connections an origin gets, and how long anybody waits there.
fn bounds(settings: &Settings) -> Bounds {
    Bounds {
        connections: usize::try_from(settings.limits.connections_per_origin).unwrap_or(usize::MAX),
        wait: settings.origins.connection_wait.get(),
        patience: settings.limits.progress_timeout.get(),
    }
}

/// Who `upstream` is asked as, by the setting that says so.
fn account(upstream: &Upstream) -> Option<String> {
    let file =
        |key: &str, path: &Option<PathBuf>| path.as_ref().map(|path| format!("{key} {}", path.display()));
    let registry = &upstream.registry;
    file("credentials_file", &upstream.credentials_file)
        .or_else(|| file("registry.credentials_file", &registry.credentials_file))
        .or_else(|| file("registry.docker_config", &registry.docker_config))
        .or_else(|| {
            upstream
                .has_user_in_url()
                .then(|| "the user in its urls".to_owned())
        })
        .or_else(|| file("client_certificate", &upstream.client_certificate))
}

/// Where redirects of `upstream` may not lead: to upstreams that some of its clients may not use.
fn closed_to(upstream: &Upstream, settings: &Settings) -> Vec<Url> {
    let has_users = settings.registry.users_file.is_some();
    let is_registry = |one: &Upstream| one.kind == Kind::Registry;
    let others = settings.upstreams.iter().filter(|other| {
        let is_by_door_alone = has_users && is_registry(other) && !is_registry(upstream);
        other.name != upstream.name && (!other.allows_whom(upstream) || is_by_door_alone)
    });
    others.flat_map(Upstream::all_urls).cloned().collect()
}

/// The token services that the settings name with their port: the guard lets them pass wherever they are.
fn token_services(upstream: &Upstream) -> impl Iterator<Item = (String, u16)> {
    upstream.registry.token_hosts.iter().filter_map(|listed| {
        let (host, port) = listed.as_str().rsplit_once(':')?;
        Some((host.to_owned(), port.parse().ok()?))
    })
}

fn lifetimes(settings: &Settings) -> Lifetimes {
    Lifetimes {
        timeout: settings.origins.dns_timeout.get(),
        fresh: settings.origins.dns_cache.get(),
    }
}
