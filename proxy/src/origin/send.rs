//! Sends one request: the upstream's URLs in order, those that failed of late last; redirects; another round where that may help.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use http::{HeaderMap, uri::PathAndQuery};
use hyper::body::Incoming;
use kato_shared::{chain::Chain, clock::Clock, redact};
use tokio::time::{Instant, interval, sleep};
use url::{Position, Url};

use super::{
    OriginBody, OriginError, OriginRequest, OriginResponse,
    connect::Connector,
    flow::{ByHyper, Flow},
    health::{Health, Standing},
    lease::Lease,
    outgoing::Outgoing,
    parent::basic_of,
    pool::{IDLE_TIMEOUT, NoHead},
    profile::Profile,
    redirect::{self, MAX_REDIRECTS},
    resume::Current,
    retry::{Budget, Policy, is_overloaded, is_unasked},
    setup::Setup,
};
use crate::{metrics::Metrics, settings::Settings};

/// The way to all origins; clones share the connections.
#[derive(Debug, Clone)]
pub struct Origin(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    setup: Setup,
    health: Health,
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
        Ok(Self::with((settings, setup), (clock, metrics), Health::default()))
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
            ..
        } = &*self.0;
        let setup = self.0.setup.next(settings)?;
        Ok(Self::with(
            (settings, setup),
            (clock.clone(), metrics.clone()),
            health.clone(),
        ))
    }

    fn with(
        (settings, setup): (&Settings, Setup),
        (clock, metrics): (Clock, Metrics),
        health: Health,
    ) -> Self {
        let inner = Arc::new(Inner {
            setup,
            health,
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
        for (place, (nth, standing)) in ordered.into_iter().enumerate() {
            let url = &request.candidates[nth];
            if let Some(error) = request.not_worth_asking(url, standing) {
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
                Ok(response) if is_unasked(&request.headers, response.status) => {
                    return Err(Unanswered::Failed(OriginError::Unasked {
                        url: redact::url(url),
                        status: response.status,
                    }));
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

    /// Asks the URL at place `nth` and follows its redirects. The content stays bound to the URL asked first.
    pub(super) async fn follow(
        &self,
        request: &Arc<OriginRequest>,
        nth: usize,
    ) -> Result<OriginResponse, OriginError> {
        let asked = &request.candidates[nth];
        let mut hop: Option<(Url, HeaderMap)> = None;
        for _ in 0..=MAX_REDIRECTS {
            let (url, headers) = hop
                .as_ref()
                .map_or((asked, &request.headers), |(url, headers)| (url, headers));
            let request_time = self.0.clock.now();
            let (response, lease) = self.ask_with_token(request, url, headers).await?;
            let (head, incoming) = response.into_parts();
            let Some(next) = redirect::target(request, url, (head.status, &head.headers))? else {
                let current = Current {
                    flow: Flow::Hyper(ByHyper {
                        may_be_kept: is_persistent(head.version, &head.headers),
                        incoming,
                        lease,
                    }),
                    nth,
                    redirected: hop.map(|(url, _)| url),
                };
                return Ok(OriginResponse {
                    status: head.status,
                    version: head.version,
                    request_time,
                    response_time: self.0.clock.now(),
                    body: OriginBody::new(
                        self.clone(),
                        Arc::clone(request),
                        (head.status, &head.headers),
                        current,
                    ),
                    headers: head.headers,
                });
            };
            if !self.profile(&request.upstream).may_redirect_to(&next) {
                return Err(OriginError::RedirectHost {
                    url: redact::url(url),
                    host: next[Position::BeforeHost..Position::AfterPort].to_owned(),
                });
            }
            redirect::finish(incoming, lease).await;
            let mut headers = headers.clone();
            if next.origin() != url.origin() {
                redirect::drop_credentials(&mut headers);
            }
            if request.has_stand_in && self.standing(&request.upstream, &next) != Standing::Up {
                return Err(OriginError::Down {
                    url: redact::url(&next),
                });
            }
            hop = Some((next, headers));
        }
        Err(OriginError::TooManyRedirects {
            url: redact::url(asked),
            limit: MAX_REDIRECTS,
        })
    }

    /// One exchange, up to the head of the response.
    pub(super) async fn ask(
        &self,
        request: &OriginRequest,
        url: &Url,
        headers: &HeaderMap,
    ) -> Result<(http::Response<Incoming>, Option<Lease>), OriginError> {
        if !self.connector().guard.allows(url) {
            return Err(OriginError::Guarded {
                url: redact::url(url),
            });
        }
        let destination = self.profile(&request.upstream).destination(url)?;
        let path: PathAndQuery = url[Position::BeforePath..Position::AfterQuery].parse().map_err(
            |_no_path: http::uri::InvalidUri| OriginError::BadRedirect {
                url: redact::url(url),
                location: redact::url(url),
            },
        )?;
        let outgoing = Outgoing {
            method: &request.method,
            is_repeatable: request.method.is_idempotent() && !request.has_stand_in,
            path,
            headers,
            authorization: basic_of(url),
            body: &request.body,
            interim: request.interim.as_ref(),
        };
        self.0.metrics.upstream_request(&request.upstream);
        match destination.exchange(&outgoing).await {
            Ok(answered) => {
                if self.0.health.answered(url) {
                    tracing::info!(upstream = request.upstream, url = %origin_of(url), "the origin answers again");
                }
                Ok(answered)
            }
            Err(no_head) => Err(self.not_answered(request, url, no_head)),
        }
    }

    fn not_answered(&self, request: &OriginRequest, url: &Url, no_head: NoHead) -> OriginError {
        let error = match no_head {
            NoHead::Failed(source) => OriginError::Request {
                url: redact::url(url),
                source,
            },
            NoHead::Stalled => OriginError::Stalled {
                url: redact::url(url),
                waited: self.0.progress_timeout,
            },
        };
        self.0.metrics.upstream_failure(&request.upstream, error.kind());
        if error.is_dead() && self.0.health.failed(url, Instant::now()) {
            tracing::warn!(upstream = request.upstream, url = %origin_of(url), error = %Chain(&error), "the origin does not answer; others are asked first for a while");
        }
        error
    }

    pub(super) fn health(&self) -> &Health {
        &self.0.health
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

/// Whether the connection stays open after this response, as far as the response says (RFC 9112 §9.3).
fn is_persistent(version: http::Version, headers: &HeaderMap) -> bool {
    let mut options = headers.get_all(http::header::CONNECTION).iter();
    version == http::Version::HTTP_11
        && options.all(|value| value.as_bytes().eq_ignore_ascii_case(b"keep-alive"))
}

fn origin_of(url: &Url) -> String {
    url.origin().ascii_serialization()
}

#[cfg(test)]
mod tests;
