//! Sends one request: the upstream's URLs in order, those that failed of late last; another round where that may help.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use kato_shared::{chain::Chain, clock::Clock, redact};
use tokio::time::{Instant, interval, sleep};
use url::Url;

use super::{
    OriginError, OriginRequest, OriginResponse,
    connect::Connector,
    health::{Health, Standing},
    pool::IDLE_TIMEOUT,
    profile::Profile,
    retry::{Budget, Policy, is_overloaded},
    setup::Setup,
    shown::Shown,
};
use crate::{metrics::Metrics, settings::Settings};

/// The way to all origins; clones share the connections.
#[derive(Debug, Clone)]
pub struct Origin(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    setup: Setup,
    health: Health,
    shown: Shown,
    policy: Policy,
    clock: Clock,
    metrics: Metrics,
    progress_timeout: Duration,
}

/// What a round over all URLs came to, when not an answer.
enum Unanswered {
    /// The best of what came: a response that says that the origin is overloaded.
    Overloaded(Box<OriginResponse>, Option<Duration>),
    Failed(OriginError),
}

impl Origin {
    /// A client for the upstreams of `settings`. It must be made inside a runtime: idle connections are closed by a task.
    ///
    /// # Errors
    /// [`OriginError::Tls`], and [`OriginError::File`] naming a file that cannot be used.
    pub fn new(settings: &Settings, clock: Clock, metrics: Metrics) -> Result<Self, OriginError> {
        let setup = Setup::new(settings)?;
        Ok(Self::with((settings, setup), (clock, metrics), <_>::default()))
    }

    /// The way to the origins of `settings`, after those of `before`: with the same upstreams and times, the same connections; else
    /// new ones, and requests under way end on the old. What is known about dead origins stays known.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn under(&self, before: &Settings, settings: &Settings) -> Result<Self, OriginError> {
        let is_same = before.upstreams == settings.upstreams
            && before.limits == settings.limits
            && before.origins == settings.origins
            // The files behind the settings may have changed: certificates are renewed under the same name.
            && !Setup::reads_files(settings);
        if is_same {
            return Ok(self.clone());
        }
        let Inner {
            clock,
            metrics,
            health,
            shown,
            ..
        } = &*self.0;
        let setup = self.0.setup.next(settings)?;
        Ok(Self::with(
            (settings, setup),
            (clock.clone(), metrics.clone()),
            (health.clone(), shown.clone()),
        ))
    }

    fn with(
        (settings, setup): (&Settings, Setup),
        (clock, metrics): (Clock, Metrics),
        (health, shown): (Health, Shown),
    ) -> Self {
        let inner = Arc::new(Inner {
            setup,
            health,
            shown,
            policy: Policy::of(&settings.origins),
            clock,
            metrics,
            progress_timeout: settings.limits.progress_timeout.get(),
        });
        let sweeping = sweep(Arc::downgrade(&inner));
        inner.setup.connector().tasks.spawn(sweeping);
        Self(inner)
    }

    /// Asks the upstream's URLs until one answers: see `retry` for what is tried again, and when.
    ///
    /// # Errors
    /// [`OriginError`] of the last URL.
    ///
    /// # Cancel safety
    /// Dropping it ends the exchange.
    pub async fn send(&self, request: OriginRequest) -> Result<OriginResponse, OriginError> {
        let request = Arc::new(request);
        let may_wait = request.method.is_safe() && !request.has_stand_in;
        let mut budget = Budget::new(self.0.policy, !may_wait);
        loop {
            let unanswered = match self.round(&request).await {
                Ok(response) => return Ok(response),
                Err(unanswered) => unanswered,
            };
            let pause = match &unanswered {
                Unanswered::Overloaded(_, None) => None,
                Unanswered::Overloaded(_, wait) => budget.pause(*wait),
                Unanswered::Failed(error @ OriginError::Busy { .. }) => budget.pause(error.retry_after()),
                Unanswered::Failed(error) if error.is_retryable() => budget.pause(None),
                Unanswered::Failed(_) => None,
            };
            if let Some(pause) = pause {
                drop(unanswered);
                sleep(pause).await;
                continue;
            }
            return match unanswered {
                Unanswered::Overloaded(response, wait) => request.passed_on(*response, wait),
                Unanswered::Failed(error) => {
                    let (upstream, rounds) = (&request.upstream, budget.rounds_made().max(1));
                    tracing::info!(upstream, rounds, error = %Chain(&error), "no answer from the upstream");
                    Err(error)
                }
            };
        }
    }

    /// Each URL once, as far as it is worth asking.
    async fn round(&self, request: &Arc<OriginRequest>) -> Result<OriginResponse, Unanswered> {
        let mut overloaded = None;
        let mut failure = None;
        let ordered = self.ordered(request);
        let last = ordered.len().saturating_sub(1);
        let has_no_other = ordered
            .iter()
            .all(|(_, standing)| matches!(standing, Standing::Busy(_)));
        for (place, (nth, standing)) in ordered.into_iter().enumerate() {
            let url = &request.candidates[nth];
            if let Some(error) = request.not_worth_asking(url, standing)
                && !(has_no_other && self.is_trial(request, url))
            {
                failure.get_or_insert(error);
                continue;
            }
            match self.follow(request, nth).await {
                Ok(response) if request.method.is_safe() && is_overloaded(response.status) => {
                    let wait = self.patience_asked(url, &response);
                    if place < last {
                        tracing::info!(url = %redact::url(url), status = response.status.as_u16(), "trying the next mirror");
                    }
                    overloaded = Some((response, wait));
                }
                Ok(response) => return Ok(response),
                Err(error) if request.method.is_safe() && error.may_do_better_elsewhere() => {
                    failure = Some(error);
                }
                Err(error) => return Err(Unanswered::Failed(error)),
            }
        }
        match (overloaded, failure) {
            (Some((response, wait)), _) => Err(Unanswered::Overloaded(Box::new(response), wait)),
            (None, Some(error)) => Err(Unanswered::Failed(error)),
            (None, None) => Err(Unanswered::Failed(OriginError::Guarded {
                url: "no candidate".into(),
            })),
        }
    }

    pub(super) fn health(&self) -> &Health {
        &self.0.health
    }

    pub(super) fn shown(&self) -> &Shown {
        &self.0.shown
    }

    pub(super) fn clock(&self) -> &Clock {
        &self.0.clock
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// Whether the origin of `url` is asked last, or not at all for a while.
    pub fn is_down(&self, url: &Url) -> bool {
        self.0.health.is_marked(url, Instant::now())
    }

    pub(super) fn policy(&self) -> &Policy {
        &self.0.policy
    }

    pub(super) fn connector(&self) -> &Connector {
        self.0.setup.connector()
    }

    pub(super) fn profile(&self, upstream: &str) -> &Profile {
        self.0.setup.profile(upstream)
    }

    pub(super) fn progress_timeout(&self) -> Duration {
        self.0.progress_timeout
    }

    pub(super) fn received(&self, upstream: &str, bytes: usize) {
        self.0.metrics.upstream_bytes(upstream, bytes as u64);
    }
}

/// Closes idle connections now and then, as long as there is somebody to use them.
async fn sweep(inner: Weak<Inner>) {
    let mut every = interval(IDLE_TIMEOUT / 2);
    loop {
        every.tick().await;
        let Some(inner) = inner.upgrade() else { return };
        inner.setup.sweep(Instant::now());
    }
}

#[cfg(test)]
mod tests;
