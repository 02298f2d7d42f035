//! Sends one request: candidates in order, redirects by hand, retries where nothing was received.

use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::Full;
use jiff::Timestamp;
use kato_shared::{backoff::Backoff, chain::Chain, clock::Clock, redact};
use percent_encoding::percent_decode_str;
use tokio::time::{Instant, timeout};
use url::Url;

use super::{
    OriginBody, OriginError, breaker::Breaker, connections::Connections, guard::Guard, resume::Progressing,
};
use crate::{interim::Interim, metrics::Metrics, settings::Settings};

/// Redirects followed for one request; browsers stop at 20, caches at 5 to 10.
const MAX_REDIRECTS: usize = 10;
/// Rounds over all candidates for a request that may be repeated.
const ROUNDS: u32 = 2;

/// The way to all origins; clones share the connections.
#[derive(Debug, Clone)]
pub struct Origin {
    connections: Connections,
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
    /// Where interim responses go.
    pub interim: Option<Interim>,
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
        let connect_timeout = settings.limits.connect_timeout.get();
        let connections = Connections::new(guard.clone(), connect_timeout).map_err(OriginError::Client)?;
        Ok(Self {
            connections,
            guard,
            breaker: Breaker::default(),
            clock,
            metrics,
            progress_timeout: settings.limits.progress_timeout.get(),
        })
    }

    /// The way to the origins of `settings`, after those of `before`: with the same upstreams and times, the same connections; else
    /// new ones, and requests under way end on the old. What is known about dead origins stays known.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn under(&self, before: &Settings, settings: &Settings) -> Result<Self, OriginError> {
        if before.upstreams == settings.upstreams && before.limits == settings.limits {
            return Ok(self.clone());
        }
        Ok(Self {
            breaker: self.breaker.clone(),
            ..Self::new(settings, self.clock.clone(), self.metrics.clone())?
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
                    Ok(response) if is_unasked(&request.headers, response.status) => {
                        return Err(OriginError::Unasked {
                            url: redact::url(candidate),
                            status: response.status,
                        });
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
        let exchange = exchange(request, url, headers)?;
        let sending = self.connections.exchange(exchange, request.interim.clone());
        let outcome = match timeout(self.progress_timeout, sending).await {
            Ok(sent) => sent.map_err(|source| OriginError::Request {
                url: redact::url(url),
                source,
            }),
            Err(_elapsed) => Err(OriginError::Stalled {
                url: redact::url(url),
                waited: self.progress_timeout,
            }),
        };
        if let Err(error) = &outcome {
            // Only an origin that cannot be reached is one that we are disconnected from (RFC 9111 §4.2.4): one that closed a
            // connection has to be asked about everything else all the same.
            if !error.is_cut_off() {
                self.breaker.failed(url, Instant::now());
            }
            self.metrics.upstream_failure(&request.upstream, error.kind());
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

    /// Whether the last request to the origin of `url` brought no answer, a moment ago.
    pub fn is_down(&self, url: &Url) -> bool {
        self.breaker.is_open(url, Instant::now())
    }

    pub(super) const fn progress_timeout(&self) -> Duration {
        self.progress_timeout
    }

    pub(super) fn received(&self, upstream: &str, bytes: usize) {
        self.metrics.upstream_bytes(upstream, bytes as u64);
    }
}

/// The request as it is sent to `url`. Credentials in an upstream's URL become a field, unless the client sent its own.
fn exchange(
    request: &OriginRequest,
    url: &Url,
    mut headers: HeaderMap,
) -> Result<Request<Full<Bytes>>, OriginError> {
    if let Some(credentials) = credentials(url) {
        headers.entry(header::AUTHORIZATION).or_insert(credentials);
    }
    let not_a_uri = |_: http::uri::InvalidUri| OriginError::BadRedirect {
        url: redact::url(url),
        location: redact::url(url),
    };
    let mut exchange = Request::new(Full::new(request.body.clone()));
    *exchange.method_mut() = request.method.clone();
    let (scheme, authority) = (
        url.scheme(),
        &url[url::Position::BeforeHost..url::Position::AfterPort],
    );
    let path = &url[url::Position::BeforePath..url::Position::AfterQuery];
    let target = format!("{scheme}://{authority}{path}");
    *exchange.uri_mut() = target.parse().map_err(not_a_uri)?;
    *exchange.headers_mut() = headers;
    Ok(exchange)
}

/// `user:password@` of a URL as the field that it stands for (RFC 7617).
fn credentials(url: &Url) -> Option<HeaderValue> {
    if url.username().is_empty() && url.password().is_none() {
        return None;
    }
    let plain = |part: &str| percent_decode_str(part).collect::<Vec<_>>();
    let pair = [plain(url.username()), plain(url.password().unwrap_or_default())].join(&b':');
    let mut value = HeaderValue::try_from(format!("Basic {}", BASE64_STANDARD.encode(pair))).ok()?;
    value.set_sensitive(true);
    Some(value)
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

/// Whether `status` answers a range or a condition that the request did not have: taken for an answer, it would be a part or
/// nothing in the place of the whole.
fn is_unasked(request: &HeaderMap, status: StatusCode) -> bool {
    let has = |names: &[header::HeaderName]| names.iter().any(|name| request.contains_key(name));
    match status {
        StatusCode::PARTIAL_CONTENT => !has(&[header::RANGE]),
        StatusCode::NOT_MODIFIED => !has(&[header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE]),
        _ => false,
    }
}

fn is_overloaded(status: StatusCode) -> bool {
    matches!(status.as_u16(), 500 | 502 | 503 | 504)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_of_an_upstream_are_a_field_and_not_part_of_the_target() {
        let url = Url::parse("https://us%40er:p%3Aw@example.com:8443/a?b#c").unwrap();
        let request = |headers: HeaderMap| {
            let request = OriginRequest {
                upstream: "u".into(),
                candidates: Vec::new(),
                method: Method::GET,
                headers: HeaderMap::new(),
                body: Bytes::new(),
                interim: None,
                has_stand_in: false,
            };
            exchange(&request, &url, headers).unwrap()
        };
        let sent = request(HeaderMap::new());
        assert_eq!(sent.uri(), "https://example.com:8443/a?b");
        assert_eq!(sent.headers()["authorization"], "Basic dXNAZXI6cDp3");
        let own = HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_static("Bearer x"))]);
        assert_eq!(request(own).headers()["authorization"], "Bearer x");
        assert!(credentials(&Url::parse("https://example.com/").unwrap()).is_none());
    }
}
