//! Without any origin: what is stored is sent, everything else is a miss that is answered at once, and noted.
//!
//! Nothing here waits: not for an origin, not for the disk of the notes. Who asks for something that is not there gets 404, as of a
//! server that does not have it, so that clients go on with what they have instead; the problem detail says which snapshot was looked into,
//! why, and how to ask for it.

use std::sync::Arc;

use http::Method;

use super::{
    Answer, Ask, Pipeline,
    retrieve::{Round, Selected},
};
use crate::{
    metrics::{Event, Outcome},
    offline::{Miss, Noted, ServeError, Served, Unnoted},
    policy::{self, Absence, Disconnected, Overrides},
    respond,
    snapshot::Record,
    store::Responses,
};

impl Pipeline {
    /// The snapshot that answers are taken from; `None` where it is the store itself.
    pub(super) fn served(&self) -> Option<Arc<Served>> {
        self.0.settings.offline.then(|| self.0.fills.serving.now())?
    }

    /// Which snapshot is served, where it is one.
    pub fn served_record(&self) -> Option<Record> {
        Some(self.served()?.record().clone())
    }

    /// Looks which snapshot is to be served. Blocks.
    ///
    /// # Errors
    /// [`ServeError`]; the one before is served on then.
    pub fn look_for_snapshot(&self) -> Result<(), ServeError> {
        let settings = &self.0.settings;
        if settings.offline
            && self
                .0
                .fills
                .serving
                .look(&settings.cache.dir, settings.mirror.snapshot)?
        {
            let name = self
                .served()
                .map_or_else(|| "none".to_owned(), |served| served.name());
            tracing::info!(snapshot = name, "this snapshot is served from now on");
        }
        Ok(())
    }

    /// Answers from `entry`, or says that there is nothing.
    pub(super) async fn disconnected(&self, ask: &Ask, entry: Responses, overrides: &Overrides) -> Round {
        if let Some(answer) = self.held_tags(ask) {
            return Round::Done(Box::new(answer));
        }
        let now = self.0.clock.now();
        let entry = self.as_listed(&ask.target, entry).await;
        match policy::disconnected(&ask.request(), entry.heads(), (overrides, now)) {
            Disconnected::Send { index, aged } => {
                let selected = Selected { entry, index };
                let detail = (!aged.is_fresh()).then_some("offline");
                if detail.is_some() {
                    self.0.metrics.note(Event::StaleServed);
                }
                self.hit(ask, &selected, aged, detail).await
            }
            Disconnected::Absent(absence) => Round::Done(Box::new(self.absent(ask, absence))),
        }
    }

    /// The answer about what is not held.
    pub(super) fn absent(&self, ask: &Ask, absence: Absence) -> Answer {
        let noted = self.note_miss(ask, absence);
        let wants_stored_only = policy::cache_control::RequestDirectives::of(&ask.headers).only_if_cached;
        let url = ask.target.key.uri();
        let problem = if wants_stored_only {
            respond::only_if_cached(url)
        } else {
            respond::not_held(
                url,
                self.served().map(|served| served.name()).as_deref(),
                &absence,
                noted,
            )
        };
        let detail = if wants_stored_only {
            "only-if-cached"
        } else {
            "offline"
        };
        Answer::generated(respond::problem(&problem), Outcome::Failed, detail)
    }

    fn note_miss(&self, ask: &Ask, absence: Absence) -> Noted {
        let misses = &self.0.fills.misses;
        let url = ask.target.key.uri();
        let upstream = &ask.target.upstream;
        if !self.0.settings.mirror.note_misses {
            return Noted::Not(Unnoted::Off);
        }
        debug_assert!(matches!(ask.method, Method::GET | Method::HEAD));
        let accept = ask.headers.get(http::header::ACCEPT);
        let miss = || Miss {
            time: self.0.clock.now(),
            url: url.to_owned(),
            accept: accept.and_then(|accept| Some(accept.to_str().ok()?.to_owned())),
            reason: absence.label().to_owned(),
            upstream: upstream.name.to_string(),
            snapshot: self.served().map(|served| served.name()),
        };
        let (noted, must_write) = misses.note(url, &upstream.carried_parameters, miss);
        if must_write {
            let misses = Arc::clone(misses);
            self.0.tasks.spawn_blocking(move || misses.write());
        }
        noted
    }
}
