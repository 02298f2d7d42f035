//! A [`Pipeline`] as one generation of the settings: how it comes about, how the next one follows, and what it tells of itself.

use std::sync::Arc;

use kato_shared::{clock::Clock, redact};
use tokio_util::task::TaskTracker;

use super::{Layers, Pipeline, fills::Fills, private_keys::PrivateKeys};
use crate::{
    admission::Admission,
    fill::collapse::Collapse,
    front::Prepared,
    metrics::{Gauges, Metrics},
    origin::{Origin, OriginError},
    registry::Guests,
    route::Router,
    settings::Settings,
    store::Store,
    tls::authority::Authority,
};

impl Pipeline {
    /// The layers, put together.
    pub fn new(
        settings: Settings,
        store: Store,
        origin: Origin,
        metrics: Metrics,
        clock: Clock,
        authority: Option<Authority>,
    ) -> Self {
        Self(Arc::new(Layers {
            router: Router::new(&settings),
            admission: Admission::new(&settings.limits),
            fills: Arc::new(Fills::new(&settings)),
            guests: Guests::new(&settings.registry, None),
            settings,
            store,
            origin,
            authority,
            collapse: Collapse::default(),
            private_keys: PrivateKeys::default(),
            metrics,
            clock,
            prepared: Prepared::default(),
            tasks: TaskTracker::new(),
            pseudonym: pseudonym().into(),
        }))
    }

    /// The next generation: `settings`, with what opens CONNECT under them, over what this one shares.
    ///
    /// # Errors
    /// [`OriginError`] when its origins cannot be set up; this generation is as it was.
    pub fn under(&self, settings: Settings, authority: Option<Authority>) -> Result<Self, OriginError> {
        let layers = &*self.0;
        layers.metrics.add_upstreams(&settings);
        layers.admission.resize(&settings.limits);
        Ok(Self(Arc::new(Layers {
            router: Router::new(&settings),
            origin: layers.origin.under(&layers.settings, &settings)?,
            guests: Guests::new(&settings.registry, Some(&layers.guests)),
            settings,
            authority,
            admission: layers.admission.clone(),
            store: layers.store.clone(),
            collapse: layers.collapse.clone(),
            private_keys: layers.private_keys.clone(),
            fills: Arc::clone(&layers.fills),
            metrics: layers.metrics.clone(),
            clock: layers.clock.clone(),
            prepared: Prepared::default(),
            tasks: layers.tasks.clone(),
            pseudonym: Arc::clone(&layers.pseudonym),
        })))
    }

    /// Waits until downloads and tunnels have ended.
    pub async fn drain(&self) {
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    /// The store, for the admin API.
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// Readings of the store and the origins, for metrics.
    pub(crate) fn gauges(&self) -> Gauges {
        let store = &self.0.store;
        let upstreams = self.0.settings.upstreams.iter();
        let mirrors = upstreams.flat_map(|upstream| {
            upstream.urls.iter().map(|base| {
                let is_down = self.0.origin.is_down(base.url());
                (upstream.name.to_string(), redact::url(base.url()), is_down)
            })
        });
        Gauges {
            totals: store.totals().unwrap_or_default(),
            ledger: store.figures(),
            scrub: store.scrub_figures(),
            quarantined: store.quarantined().len(),
            queued: store.queued(),
            mirrors: mirrors.collect(),
            is_storing: store.trouble().is_none() && store.check_room().is_ok(),
        }
    }

    /// Where requests may go.
    pub(crate) fn router(&self) -> &Router {
        &self.0.router
    }

    /// The counters.
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// The time by the clock that stamps stored responses.
    pub(crate) fn now(&self) -> jiff::Timestamp {
        self.0.clock.now()
    }

    /// That clock.
    pub(crate) fn clock(&self) -> Clock {
        self.0.clock.clone()
    }

    /// The settings in force.
    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }
}

fn pseudonym() -> String {
    format!("kato-{:08x}", nonce() & 0xffff_ffff)
}

/// A number that nobody outside can foresee, from the seed that the standard library takes from the system.
pub(super) fn nonce() -> u128 {
    use std::hash::{BuildHasher, RandomState};
    let half = || u128::from(RandomState::new().hash_one(0_u8));
    half() << 64 | half()
}
