//! One request and its answer: what the answer is, and for a failure, whether asking again makes sense.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use kato_shared::{api::Problem, clock::Clock};
use tokio::time::{Instant, timeout_at};
use url::Url;

use super::{
    FetchError, Fetcher, answers,
    pace::{Broken, Pace},
    redirect::{self, Followed},
    retry::MAX_RETRY_AFTER,
};

/// Where to continue.
#[derive(Debug, Clone, Copy)]
pub(super) struct Resume<'a> {
    /// The bytes that are there.
    pub(super) offset: u64,
    /// The strong entity tag of the representation that they are from.
    pub(super) etag: Option<&'a str>,
}

/// A body on its way.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) response: reqwest::Response,
    /// Where the body begins in the representation: the offset asked for, or 0 when all of it comes.
    pub(super) start: u64,
    /// The size of the whole representation in bytes, when the server says it.
    pub(super) size: Option<u64>,
    /// Its entity tag, when it is a strong one; a weak one does not promise the same bytes (RFC 9110 §8.8.1).
    pub(super) etag: Option<String>,
}

/// A failed request.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) error: FetchError,
    pub(super) retry: Retry,
}

/// Whether to ask again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Retry {
    /// The answer will not change by asking.
    Never,
    /// Later; `Some` when the server said how much later.
    Again(Option<Duration>),
}

impl From<FetchError> for Failed {
    fn from(error: FetchError) -> Self {
        Self {
            error,
            retry: Retry::Never,
        }
    }
}

/// The error for a page in the place of `target`.
pub(super) fn page(fetcher: &Fetcher, target: &Url) -> FetchError {
    FetchError::Page {
        url: super::error::shown(&fetcher.route.resolve(target)),
        is_cache: fetcher.route.is_cache(),
    }
}

/// Asks for `target` by the fetcher's route.
pub(super) async fn send(
    fetcher: &Fetcher,
    target: &Url,
    resume: Option<Resume<'_>>,
) -> Result<Answer, Failed> {
    let url = fetcher.route.resolve(target);
    let followed = redirect::follow(fetcher, Method::GET, &url, &fields(fetcher, target, resume)).await?;
    let response = &followed.response;
    let etag = strong_etag(response.headers());
    if let Some(answers) = fetcher
        .answers
        .as_ref()
        .filter(|_| response.status().is_success())
    {
        answers.note(
            target,
            answers::source(response.headers()),
            response.content_length(),
        );
    }
    match (response.status(), resume) {
        (StatusCode::OK, _) => Ok(Answer {
            size: response.content_length(),
            response: followed.response,
            start: 0,
            etag,
        }),
        (StatusCode::PARTIAL_CONTENT, Some(resume)) => match content_range(response.headers()) {
            Some((start, size)) if start == resume.offset => Ok(Answer {
                response: followed.response,
                start,
                size,
                etag,
            }),
            _ => Err(refused(fetcher, followed).await),
        },
        _ => Err(refused(fetcher, followed).await),
    }
}

/// The fields of a request for `target`.
fn fields(fetcher: &Fetcher, target: &Url, resume: Option<Resume<'_>>) -> HeaderMap {
    // Stale is as good as fresh where signed metadata give the digest: no cache needs to ask its upstream again. What decides
    // what is the newest must not be older than that, whatever a cache thinks fresh.
    let age = if is_pinned(target) {
        "max-stale".to_owned()
    } else {
        format!("max-age={}", fetcher.max_age)
    };
    let range = resume.map(|resume| format!("bytes={}-", resume.offset));
    let etag = resume.and_then(|resume| resume.etag.map(ToOwned::to_owned));
    let mut fields = HeaderMap::new();
    // Digests are of the stored bytes; a server that compresses on the fly would change them.
    fields.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    for (name, value) in [
        (header::CACHE_CONTROL, Some(age)),
        (header::RANGE, range),
        (header::IF_RANGE, etag),
    ] {
        // An entity tag came out of a field, so it fits into one.
        if let Some(Ok(value)) = value.map(HeaderValue::try_from) {
            fields.insert(name, value);
        }
    }
    fields
}

/// Whether the content behind a URL of a repository can never change, because its name holds a version or a digest
/// (consistent snapshots, TUF §6.2) and what refers to it gives its digest. Only the timestamp and the question for
/// the next root, whose answer is "not found" until there is one, are open.
fn is_pinned(target: &Url) -> bool {
    let name = target.path().rsplit('/').next().unwrap_or_default();
    !matches!(name, "timestamp.json" | "snapshot.json" | "targets.json") && !name.ends_with(".root.json")
}

/// The failure of a request that got no answer.
pub(super) fn no_answer(
    fetcher: &Fetcher,
    url: &Url,
    elsewhere: Option<&Url>,
    source: reqwest::Error,
) -> Failed {
    let retry = if source.is_builder() {
        Retry::Never
    } else {
        Retry::Again(None)
    };
    let is_cache = fetcher.route.is_cache() && elsewhere.is_none();
    let host = authority(elsewhere.unwrap_or(url));
    let error = FetchError::Unreachable {
        peer: format!("the {} {host}", if is_cache { "cache" } else { "server" }),
        is_cache,
        url: redirect::shown(url, elsewhere),
        elsewhere: elsewhere.map(authority),
        // The URL is named once, by us, and without its secrets.
        source: source.without_url(),
    };
    Failed { error, retry }
}

/// How far a body had come.
#[derive(Debug, Clone, Copy)]
pub(super) struct SoFar {
    /// The bytes that are there.
    pub(super) received: u64,
    /// The bytes that are expected; 0 when unknown.
    pub(super) size: u64,
    /// Whether the next attempt can only begin at the start.
    pub(super) anew: bool,
}

impl SoFar {
    /// The beginning of a body of `size` bytes.
    pub(super) const fn none_of(size: u64, anew: bool) -> Self {
        Self {
            received: 0,
            size,
            anew,
        }
    }

    pub(super) const fn with(self, received: u64) -> Self {
        Self { received, ..self }
    }
}

/// The failure of a body that was broken off; without a reason, it just ended.
pub(super) fn broken(
    fetcher: &Fetcher,
    url: &str,
    so_far: SoFar,
    pace: &Pace,
    why: Option<Broken>,
) -> Failed {
    let url = url.to_owned();
    let (error, again) = match why {
        Some(Broken::Slow { received, again }) => {
            let floor = pace.floor();
            let error = FetchError::TooSlow {
                url,
                is_cache: fetcher.route.is_cache(),
                received,
                within: floor.window,
                expected: Some(floor.bytes),
            };
            (error, again)
        }
        other => {
            let source = other.and_then(|broken| match broken {
                Broken::Line(source) => Some(source.without_url()),
                Broken::Slow { .. } => None,
            });
            let SoFar { received, size, anew } = so_far;
            let error = FetchError::Interrupted {
                url,
                received,
                size,
                anew,
                source,
            };
            (error, true)
        }
    };
    let retry = if again { Retry::Again(None) } else { Retry::Never };
    Failed { error, retry }
}

/// Host and port, for people.
fn authority(url: &Url) -> String {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}{port}", url.host_str().unwrap_or_default())
}

/// Sorts an answer that is not the file.
pub(super) async fn refused(fetcher: &Fetcher, followed: Followed) -> Failed {
    let url = followed.shown();
    let elsewhere = followed.elsewhere.as_ref().map(authority);
    let response = followed.response;
    let status = response.status();
    let after = retry_after(response.headers());
    let problem = problem(response).await;
    let again = Retry::Again(after);
    let (error, retry) = match problem {
        Some(problem) if fetcher.route.is_cache() && problem.is_not_stored() => (
            FetchError::NotInCache {
                url,
                detail: problem.detail,
            },
            Retry::Never,
        ),
        Some(problem)
            if fetcher.route.is_cache()
                && matches!(status, StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT) =>
        {
            (
                FetchError::Upstream {
                    url,
                    detail: problem.detail,
                    advice: problem.hint,
                },
                again,
            )
        }
        problem => {
            let (detail, advice) = problem.map_or((None, None), |p| (Some(p.detail), p.hint));
            // Who asks again earlier than that is turned away again, and may be shut out.
            if let Some(until) = until(status, after, Clock::system().now()) {
                return FetchError::Busy {
                    url,
                    status: status.as_u16(),
                    until,
                    detail,
                }
                .into();
            }
            let error = FetchError::Status {
                url,
                status: status.as_u16(),
                elsewhere,
                detail,
                advice,
            };
            (error, if may_pass(status) { again } else { Retry::Never })
        }
    };
    Failed { error, retry }
}

/// Status codes that say "not now" instead of "no".
fn may_pass(status: StatusCode) -> bool {
    status.is_server_error()
        || matches!(
            status,
            StatusCode::TOO_MANY_REQUESTS
                | StatusCode::REQUEST_TIMEOUT
                | StatusCode::TOO_EARLY
                // Our partial file is longer than the representation, or the server miscounts: from the start again.
                | StatusCode::RANGE_NOT_SATISFIABLE
                | StatusCode::PARTIAL_CONTENT
        )
}

/// When a server wants to be asked again, if that is later than a run waits for.
fn until(status: StatusCode, after: Option<Duration>, now: jiff::Timestamp) -> Option<jiff::Timestamp> {
    let asks = matches!(
        status,
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS
    );
    let after = after.filter(|after| asks && *after > MAX_RETRY_AFTER)?;
    // A time beyond all times is as good as the last one.
    let span = jiff::SignedDuration::try_from(after).unwrap_or(jiff::SignedDuration::MAX);
    Some(now.saturating_add(span).unwrap_or(jiff::Timestamp::MAX))
}

/// The longest problem detail that is read, in bytes.
const MAX_PROBLEM: usize = 16 * 1024;

/// How long it may take; without it, the status alone says enough.
const PROBLEM_DEADLINE: Duration = Duration::from_secs(10);

/// What a cache says about itself; an origin's own problem details mean nothing to us.
async fn problem(mut response: reqwest::Response) -> Option<Problem> {
    let media_type = response.headers().get(header::CONTENT_TYPE)?.to_str().ok()?;
    if !media_type.starts_with(Problem::MEDIA_TYPE) {
        return None;
    }
    let end = Instant::now() + PROBLEM_DEADLINE;
    let mut bytes = Vec::new();
    while let Ok(Some(piece)) = timeout_at(end, response.chunk()).await.ok()? {
        bytes.extend_from_slice(&piece);
        if bytes.len() > MAX_PROBLEM {
            return None;
        }
    }
    serde_json::from_slice(&bytes).ok().filter(Problem::is_own)
}

fn strong_etag(headers: &HeaderMap) -> Option<String> {
    let etag = headers.get(header::ETAG)?.to_str().ok()?;
    (etag.starts_with('"') && etag.len() > 2).then(|| etag.to_owned())
}

/// `bytes 5-9/10` is (5, Some(10)); RFC 9110 §14.4.
fn content_range(headers: &HeaderMap) -> Option<(u64, Option<u64>)> {
    let text = headers.get(header::CONTENT_RANGE)?.to_str().ok()?;
    let (range, size) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (start, _end) = range.split_once('-')?;
    let size = if size == "*" {
        None
    } else {
        Some(size.parse().ok()?)
    };
    Some((start.parse().ok()?, size))
}

/// Seconds or a date (RFC 9110 §10.2.3).
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    delay(headers.get(header::RETRY_AFTER)?, Clock::system().now())
}

fn delay(value: &HeaderValue, now: jiff::Timestamp) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    Some(Duration::try_from(at.duration_since(now)).unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc9111_s5_2_1_2_stale_answers_are_welcome_where_the_digest_is_known() {
        let is = |path: &str| is_pinned(&Url::parse(&format!("https://h.example/{path}")).unwrap());
        assert!(
            is("metadata/2.snapshot.json") && is("metadata/12.targets.json") && is("targets/aa.graph.json")
        );
        assert!(
            !is("metadata/timestamp.json") && !is("metadata/2.root.json") && !is("metadata/snapshot.json")
        );
    }

    #[test]
    fn rfc9110_s10_2_3_retry_after_is_seconds_or_a_date() {
        let now = "2026-11-20T10:00:00Z".parse().unwrap();
        let of = |text: &'static str| delay(&HeaderValue::from_static(text), now);
        assert_eq!(of("120"), Some(Duration::from_secs(120)));
        assert_eq!(of("Fri, 20 Nov 2026 10:00:30 GMT"), Some(Duration::from_secs(30)));
        assert_eq!(of("Fri, 20 Nov 2026 09:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(of("soon"), None);
    }

    #[test]
    fn rfc9110_s14_4_content_range_tells_where_the_body_begins() {
        let of = |text: &'static str| {
            content_range(&HeaderMap::from_iter([(
                header::CONTENT_RANGE,
                HeaderValue::from_static(text),
            )]))
        };
        assert_eq!(of("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(of("bytes 5-9/*"), Some((5, None)));
        assert_eq!(of("bytes */10"), None);
        assert_eq!(of("items 5-9/10"), None);
    }

    #[test]
    fn rfc9110_s8_8_1_a_weak_entity_tag_is_no_ground_to_resume() {
        let of = |text: &'static str| {
            strong_etag(&HeaderMap::from_iter([(
                header::ETAG,
                HeaderValue::from_static(text),
            )]))
        };
        assert_eq!(of("\"a\"").as_deref(), Some("\"a\""));
        assert_eq!(of("W/\"a\""), None);
    }
}
