//! One URL of a request, asked: its redirects are followed, and what comes in the end is looked at before anybody believes it.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, StatusCode, header, response::Parts, uri::PathAndQuery};
use hyper::body::Body;
use kato_shared::{chain::Chain, redact};
use tokio::time::Instant;
use url::{Position, Url};

use super::{
    Origin, OriginBody, OriginError, OriginRequest, OriginResponse,
    flow::{Arriving, ByHyper, Flow},
    health::Standing,
    outgoing::Outgoing,
    plain::is_persistent,
    pool::NoHead,
    rate_limit::{RateLimit, is_counted},
    redirect::{self, MAX_REDIRECTS},
    resume::Current,
    retry::{is_asking_for_patience, is_unasked},
};
use crate::{
    policy::{Times, headers::list_contains, redirects::Hop},
    seldom::warn_seldom,
};

impl Origin {
    /// Asks the URL at place `nth` and follows its redirects. The content stays bound to the URL asked first, under the rules of
    /// all redirects on the way.
    pub(super) async fn follow(
        &self,
        request: &Arc<OriginRequest>,
        nth: usize,
    ) -> Result<OriginResponse, OriginError> {
        let asked = &request.candidates[nth];
        let mut hops = Vec::new();
        let mut target: Option<(Url, HeaderMap)> = None;
        for _ in 0..=MAX_REDIRECTS {
            let (url, headers) = target
                .as_ref()
                .map_or((asked, &request.headers), |(url, headers)| (url, headers));
            let sent = self.clock().now();
            let shown = (!hops.is_empty()).then(|| self.of_its_own(url, headers));
            let shown = shown.as_ref().unwrap_or(headers);
            let response = self.ask_with_token(request, url, shown).await?;
            let (mut head, content) = response.into_parts();
            usable(url, shown, (head.status, &head.headers))
                .inspect_err(|error| self.metrics().upstream_failure(&request.upstream, error.kind()))?;
            let times = Times {
                request: sent,
                response: self.clock().now(),
            };
            let Some(next) = redirect::target(request, url, (head.status, &head.headers))? else {
                if !hops.is_empty() {
                    self.shown().note(url, &head.headers);
                }
                self.note_turned_away(request, url, head.status);
                let redirected = target.map(|(url, _)| url);
                let found_at = redirected.clone();
                let current = Current {
                    flow: flow(&mut head, content),
                    nth,
                    redirected,
                };
                let of = (head.status, &head.headers);
                return Ok(OriginResponse {
                    status: head.status,
                    version: head.version,
                    request_time: times.request,
                    response_time: times.response,
                    hops,
                    found_at,
                    body: OriginBody::new(self.clone(), Arc::clone(request), of, current),
                    headers: head.headers,
                });
            };
            redirect::finish(content).await;
            let headers = self.redirected(request, (url, headers), &next)?;
            hops.push(Hop {
                status: head.status,
                headers: head.headers,
                times,
            });
            target = Some((next, headers));
        }
        Err(OriginError::TooManyRedirects {
            url: redact::url(asked),
            limit: MAX_REDIRECTS,
        })
    }

    /// The fields for `next`, where `url`, which was asked with `headers`, redirects to.
    fn redirected(
        &self,
        request: &OriginRequest,
        (url, headers): (&Url, &HeaderMap),
        next: &Url,
    ) -> Result<HeaderMap, OriginError> {
        if !self.profile(&request.upstream).may_redirect_to(next) {
            return Err(OriginError::RedirectHost {
                url: redact::url(url),
                host: next[Position::BeforeHost..Position::AfterPort].to_owned(),
            });
        }
        if request.has_stand_in && self.standing(&request.upstream, next) != Standing::Up {
            return Err(OriginError::Down {
                url: redact::url(next),
            });
        }
        let mut headers = headers.clone();
        if next.origin() != url.origin() {
            redirect::drop_credentials(&mut headers);
        }
        Ok(headers)
    }

    /// The fields with those validators alone that `url`, the target of a redirect, showed itself.
    fn of_its_own(&self, url: &Url, headers: &HeaderMap) -> HeaderMap {
        let mut headers = headers.clone();
        self.shown().restrict(url, &mut headers);
        headers
    }

    /// One exchange, up to the head of the response.
    pub(super) async fn ask(
        &self,
        request: &OriginRequest,
        url: &Url,
        headers: &HeaderMap,
    ) -> Result<http::Response<Arriving>, OriginError> {
        let as_us = self.profile(&request.upstream).speaks_for_us(request);
        self.ask_as(as_us, request, url, headers).await
    }

    /// The same; `as_us` says whether who we are may be shown: the credentials of a URL below it, a client certificate to the upstream's
    /// own hosts.
    pub(super) async fn ask_as(
        &self,
        as_us: bool,
        request: &OriginRequest,
        url: &Url,
        headers: &HeaderMap,
    ) -> Result<http::Response<Arriving>, OriginError> {
        if !self.connector().guard.allows(url) {
            return Err(OriginError::Guarded {
                url: redact::url(url),
            });
        }
        let profile = self.profile(&request.upstream);
        let destination = profile.destination(url, as_us)?;
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
            authorization: if as_us { profile.basic(url) } else { None },
            body: &request.body,
            interim: request.interim.as_ref(),
        };
        self.metrics().upstream_request(&request.upstream);
        match destination.exchange(&outgoing).await {
            Ok(answered) => {
                let wants_patience = is_asking_for_patience(answered.status())
                    && answered.headers().contains_key(header::RETRY_AFTER);
                if self.health().answered(url, wants_patience) {
                    tracing::info!(upstream = request.upstream, url = %origin_of(url), "the origin answers again");
                }
                self.note_rate_limit(request, url, answered.headers());
                Ok(answered)
            }
            Err(no_head) => Err(self.not_answered(request, url, no_head)),
        }
    }

    /// Says that an upstream does not serve us, and as whom we came. What a client shows of itself is the client's affair.
    fn note_turned_away(&self, request: &OriginRequest, url: &Url, status: StatusCode) {
        let is_no = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
        let profile = self.profile(&request.upstream);
        let is_ours = profile.speaks_for_us(request) && !request.headers.contains_key(header::AUTHORIZATION);
        if !is_no || !is_ours {
            return;
        }
        if let Some(unsaid) = profile.turned_away.due() {
            let unsaid = (unsaid > 0).then_some(unsaid);
            let (upstream, url) = (request.upstream.as_str(), redact::url(url));
            match &profile.account {
                Some(account) => {
                    tracing::warn!(
                        unsaid,
                        upstream,
                        url,
                        status = status.as_u16(),
                        account,
                        "the upstream turns this cache away; hint: may that account read it?"
                    );
                }
                None => {
                    tracing::warn!(
                        unsaid,
                        upstream,
                        url,
                        status = status.as_u16(),
                        "the upstream turns this cache away, which comes without an account; hint: set `credentials_file` of this upstream where it is private"
                    );
                }
            }
        }
    }

    /// Notes what a registry says about how often it may still be asked.
    fn note_rate_limit(&self, request: &OriginRequest, url: &Url, headers: &HeaderMap) {
        let Some(told) = RateLimit::of(headers).filter(|_| is_counted(url)) else {
            return;
        };
        let upstream = request.upstream.as_str();
        self.metrics()
            .rate_limited(upstream, (told.limit, told.remaining));
        let wait = (told.remaining == 0).then(|| self.policy().bounded(told.wait));
        if self.health().limited(url, wait, Instant::now()) {
            match wait {
                Some(wait) => {
                    warn_seldom!(upstream, url = %origin_of(url), limit = told.limit, ?wait, "the registry answers no more questions for a while; what is stored stands in");
                }
                None => {
                    tracing::info!(upstream, url = %origin_of(url), "the registry answers questions again");
                }
            }
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
                waited: self.progress_timeout(),
            },
        };
        self.metrics().upstream_failure(&request.upstream, error.kind());
        let now = Instant::now();
        let is_news = if matches!(error, OriginError::Stalled { .. }) {
            self.health().stalled(url, now)
        } else {
            error.is_dead() && self.health().failed(url, now)
        };
        if is_news {
            tracing::warn!(upstream = request.upstream, url = %origin_of(url), error = %Chain(&error), "the origin does not answer; others are asked first for a while");
        }
        error
    }
}

/// The registered transfer codings (RFC 9112 §7.2), but for `chunked`.
const CODINGS: [&str; 5] = ["compress", "deflate", "gzip", "x-compress", "x-gzip"];

/// Whether a head can be taken for an answer.
fn usable(
    url: &Url,
    asked: &HeaderMap,
    (status, headers): (StatusCode, &HeaderMap),
) -> Result<(), OriginError> {
    if is_unasked(asked, status) {
        return Err(OriginError::Unasked {
            url: redact::url(url),
            status,
        });
    }
    // "Such a message might indicate an attempt to perform request smuggling or response splitting and ought to be handled as an error"
    // (RFC 9112 §6.3). The connection is not used again.
    if headers.contains_key(header::TRANSFER_ENCODING) && headers.contains_key(header::CONTENT_LENGTH) {
        return Err(OriginError::TwoLengths {
            url: redact::url(url),
        });
    }
    // Transfer codings are part of the framing (RFC 9112 §7): what is stored without undoing them is not the representation. Besides
    // `chunked`, which is undone, we announce none in `TE`. A name that is registered for no coding has coded nothing.
    let is_coded = |coding: &&&str| list_contains(headers, &header::TRANSFER_ENCODING, coding.as_bytes());
    match CODINGS.iter().find(is_coded) {
        None => Ok(()),
        Some(coding) => Err(OriginError::TransferCoding {
            url: redact::url(url),
            coding: (*coding).to_owned(),
        }),
    }
}

/// Where the content comes from.
///
/// "a server MUST NOT generate content in a 205 response" ([RFC 9110 §15.3.6]): what comes all the same is left where it is, and with it
/// the connection.
///
/// [RFC 9110 §15.3.6]: https://www.rfc-editor.org/rfc/rfc9110#section-15.3.6
fn flow(head: &mut Parts, content: Arriving) -> Flow {
    let (incoming, lease) = match content {
        Arriving::Hyper(incoming, lease) => (incoming, lease),
        Arriving::Bulk(bulk) => return Flow::Bulk(bulk),
        Arriving::Here(bytes) => return Flow::Here(bytes),
    };
    if head.status == StatusCode::RESET_CONTENT && !incoming.is_end_stream() {
        head.headers
            .insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
        return Flow::Ended;
    }
    Flow::Hyper(ByHyper {
        incoming,
        lease,
        may_be_kept: is_persistent(head.version, &head.headers),
    })
}

fn origin_of(url: &Url) -> String {
    url.origin().ascii_serialization()
}
