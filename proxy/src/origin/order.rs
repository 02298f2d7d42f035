//! In which order the URLs of an upstream are asked, by what is known of their origins.

use std::time::Duration;

use kato_shared::{chain::Chain, redact};
use tokio::time::Instant;
use url::Url;

use super::{Origin, OriginRequest, OriginResponse, health::Standing, retry::is_asking_for_patience};

impl Origin {
    /// The places of the request's URLs: those that failed of late last, else in their order.
    pub(super) fn ordered(&self, request: &OriginRequest) -> Vec<(usize, Standing)> {
        let urls = request.candidates.iter().enumerate();
        let mut ordered: Vec<_> = urls
            .map(|(nth, url)| (nth, self.standing(&request.upstream, url)))
            .collect();
        ordered.sort_by_key(|(_, standing)| match standing {
            Standing::Up => 0,
            Standing::Down { .. } => 1,
            Standing::Busy(_) => 2,
        });
        ordered
    }

    /// What is thought of `url`'s origin; a probe that is due is begun.
    pub(super) fn standing(&self, upstream: &str, url: &Url) -> Standing {
        let standing = self.health().standing(url, Instant::now());
        if standing == (Standing::Down { probe: true })
            && let Ok(destination) = self.profile(upstream).destination(url, true)
        {
            let (health, url) = (self.health().clone(), url.clone());
            self.connector().tasks.spawn(async move {
                match destination.probe().await {
                    Ok(()) => health.connected(&url, Instant::now()),
                    Err(error) => {
                        health.failed(&url, Instant::now());
                        tracing::debug!(url = %redact::url(&url), error = %Chain(&error), "still not reached");
                    }
                }
            });
        }
        standing
    }

    /// Whether `url` is asked although its origin is busy: there is nothing else to answer `request` with, and it is the turn of a
    /// trial.
    pub(super) fn is_trial(&self, request: &OriginRequest, url: &Url) -> bool {
        !request.has_stand_in && self.health().may_try(url, Instant::now())
    }

    /// How long `response` asks to be left alone; remembered for all requests.
    pub(super) fn patience_asked(&self, url: &Url, response: &OriginResponse) -> Option<Duration> {
        let wait = is_asking_for_patience(response.status)
            .then(|| {
                self.policy()
                    .retry_after(&response.headers, response.response_time)
            })
            .flatten()?;
        self.health().busy(url, wait, Instant::now());
        Some(wait)
    }
}
