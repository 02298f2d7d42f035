//! Sends one request: candidates in order, redirects by hand, retries where nothing was received.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, header};
use jiff::Timestamp;
use kato_shared::{backoff::Backoff, chain::Chain, clock::Clock, redact};
use tokio::time::{Instant, timeout};
use url::Url;

use super::{OriginBody, OriginError, breaker::Breaker, guard::Guard, resume::Progressing};
use crate::{metrics::Metrics, settings::Settings};

/// Redirects followed for one request; browsers stop at 20, caches at 5 to 10.
const MAX_REDIRECTS: usize = 10;
/// Rounds over all candidates for a request that may be repeated.
const ROUNDS: u32 = 2;
/// Idle connections kept per origin.
const IDLE_PER_HOST: usize = 8;

/// The way to all origins; clones share the connections.
#[derive(Debug, Clone)]
pub struct Origin {
    client: reqwest::Client,
    guard: Guard,
    breaker: Breaker,
    clock: Clock,
    metrics: Metrics,
    progress_timeout: Duration,
}

/// What to ask.
#[derive(Debug, Clone)]
pub struct OriginRequest {
    /// The upstream's name, for metrics.
    pub upstream: String,
    /// Its mirrors of the target, tried in this order. Never empty.
    pub candidates: Vec<Url>,
    /// The method.
    pub method: Method,
    /// The fields, without hop-by-hop ones.
    pub headers: HeaderMap,
    /// The content.
    pub body: Bytes,
    /// Whether a stored response can stand in, so that waiting for a dead origin gains nothing.
    pub has_stand_in: bool,
}

/// What came back.
#[derive(Debug)]
pub struct OriginResponse {
    /// The status code.
    pub status: StatusCode,
    /// The fields as received.
    pub headers: HeaderMap,
    /// The HTTP version of the answer.
    pub version: http::Version,
    /// When the request was sent, and when the head had arrived.
    pub request_time: Timestamp,
    /// See `request_time`.
    pub response_time: Timestamp,
    /// The content.
    pub body: OriginBody,
}

impl Origin {
    /// A client for the upstreams of `settings`.
    ///
    /// # Errors
    /// [`OriginError::Client`] when the TLS set-up of this host cannot be used.
    pub fn new(settings: &Settings, clock: Clock, metrics: Metrics) -> Result<Self, OriginError> {
        let bases = settings.upstreams.iter().flat_map(|upstream| &upstream.urls);
        let guard = Guard::new(bases.map(crate::settings::BaseUrl::url));
        let client = builder(settings, &guard).build().or_else(|error| {
            // Plain HTTP, and what is stored, need no certificates: a host without any is served all the same.
            tracing::warn!(error = %Chain(&error), "no https upstream can be verified; install the ca-certificates of this host");
            builder(settings, &guard).tls_certs_only([]).build()
        });
        let client = client.map_err(OriginError::Client)?;
        Ok(Self {
            client,
            guard,
            breaker: Breaker::default(),
            clock,
            metrics,
            progress_timeout: settings.limits.progress_timeout.get(),
        })
    }

    /// Asks the candidates in order until one answers. Safe requests are repeated after a pause when none did, and go on to
    /// the next mirror on 500, 502, 503 and 504.
    ///
    /// # Errors
    /// [`OriginError`] of the last candidate.
    pub async fn send(&self, request: &OriginRequest) -> Result<OriginResponse, OriginError> {
        let rounds = if request.method.is_safe() && !request.has_stand_in {
            ROUNDS
        } else {
            1
        };
        let mut failure = None;
        for round in 0..rounds {
            if round > 0 {
                tokio::time::sleep(Backoff::NETWORK.wait_jittered(round - 1)).await;
            }
            let last = request.candidates.len().saturating_sub(1);
            for (nth, candidate) in request.candidates.iter().enumerate() {
                match self.follow(request, candidate).await {
                    Ok(response)
                        if nth < last && is_overloaded(response.status) && request.method.is_safe() =>
                    {
                        tracing::info!(url = %redact::url(candidate), status = response.status.as_u16(), "trying the next mirror");
                    }
                    Ok(response) => return Ok(response),
                    Err(error) if request.method.is_safe() && error.is_retryable() => failure = Some(error),
                    Err(error) => return Err(error),
                }
            }
        }
        Err(failure.unwrap_or_else(|| OriginError::Guarded {
            url: "no candidate".into(),
        }))
    }

    /// Asks `url` and follows its redirects. The content stays bound to the URL asked first.
    pub(super) async fn follow(
        &self,
        request: &OriginRequest,
        url: &Url,
    ) -> Result<OriginResponse, OriginError> {
        let asked = url.clone();
        let mut url = url.clone();
        let mut headers = request.headers.clone();
        for _ in 0..=MAX_REDIRECTS {
            let request_time = self.clock.now();
            let response = self.ask(request, &url, headers.clone()).await?;
            let Some(next) = redirect(request, &url, &response)? else {
                return Ok(OriginResponse {
                    status: response.status(),
                    headers: response.headers().clone(),
                    version: response.version(),
                    request_time,
                    response_time: self.clock.now(),
                    body: OriginBody::new(self.clone(), request, asked, Progressing { response, url }),
                });
            };
            if next.origin() != url.origin() {
                // "the user agent … MUST NOT" hand credentials for one origin to another (RFC 9110 §15.4).
                for secret in [header::AUTHORIZATION, header::COOKIE, header::PROXY_AUTHORIZATION] {
                    headers.remove(secret);
                }
            }
            url = next;
        }
        Err(OriginError::TooManyRedirects {
            url: redact::url(&url),
            limit: MAX_REDIRECTS,
        })
    }

    /// One exchange, up to the head of the response.
    pub(super) async fn ask(
        &self,
        request: &OriginRequest,
        url: &Url,
        headers: HeaderMap,
    ) -> Result<reqwest::Response, OriginError> {
        if !self.guard.allows(url) {
            return Err(OriginError::Guarded {
                url: redact::url(url),
            });
        }
        if request.has_stand_in && self.breaker.is_open(url, Instant::now()) {
            return Err(OriginError::Down {
                url: redact::url(url),
            });
        }
        self.metrics.upstream_request(&request.upstream);
        let sending = self
            .client
            .request(request.method.clone(), url.clone())
            .headers(headers)
            .body(request.body.clone())
            .send();
        let outcome = match timeout(self.progress_timeout, sending).await {
            Ok(sent) => sent.map_err(|error| OriginError::Request {
                url: redact::url(url),
                source: error.without_url(),
            }),
            Err(_elapsed) => Err(OriginError::Stalled {
                url: redact::url(url),
                waited: self.progress_timeout,
            }),
        };
        if let Err(error) = &outcome {
            self.breaker.failed(url, Instant::now());
            self.metrics.upstream_failure(&request.upstream);
            tracing::info!(upstream = request.upstream, error = %Chain(error), "no answer from the upstream");
        }
        if outcome.is_ok() {
            self.breaker.answered(url);
        }
        outcome
    }

    /// The addresses of a tunnel's end, guarded like those of requests.
    ///
    /// # Errors
    /// When the name is unknown, or leads to guarded addresses alone.
    pub async fn addresses(&self, host: &str, port: u16) -> std::io::Result<Vec<std::net::SocketAddr>> {
        self.guard.addresses(host, port).await
    }

    pub(super) const fn progress_timeout(&self) -> Duration {
        self.progress_timeout
    }

    pub(super) fn received(&self, upstream: &str, bytes: usize) {
        self.metrics.upstream_bytes(upstream, bytes as u64);
    }
}

fn builder(settings: &Settings, guard: &Guard) -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .no_proxy()
        .connect_timeout(settings.limits.connect_timeout.get())
        .pool_max_idle_per_host(IDLE_PER_HOST)
        .tcp_nodelay(true)
        .dns_resolver(guard.clone())
}

/// Where `response` redirects a safe request to, if it does.
fn redirect(
    request: &OriginRequest,
    url: &Url,
    response: &reqwest::Response,
) -> Result<Option<Url>, OriginError> {
    let is_redirect = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
    let location = response.headers().get(header::LOCATION);
    let Some(location) = location.filter(|_| is_redirect && request.method.is_safe()) else {
        return Ok(None);
    };
    let bad = |location: String| OriginError::BadRedirect {
        url: redact::url(url),
        location,
    };
    let text = String::from_utf8_lossy(location.as_bytes());
    let next = url
        .join(&text)
        .map_err(|_not_a_url| bad(text.clone().into_owned()))?;
    if matches!(next.scheme(), "http" | "https") {
        Ok(Some(next))
    } else {
        Err(bad(redact::url(&next)))
    }
}

fn is_overloaded(status: StatusCode) -> bool {
    matches!(status.as_u16(), 500 | 502 | 503 | 504)
}
