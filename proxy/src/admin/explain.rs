//! `show`: what is stored for a URL, by which rule it is fresh or stale, and what a request would get now.
//!
//! The answer comes from the same pure functions that serve requests ([`crate::policy`]), so it cannot differ from what
//! happens.

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use jiff::Timestamp;
use kato_shared::{api::Problem, settings::HumanDuration};
use serde::{Deserialize, Serialize};

use super::{
    Admin, EntryView, Query,
    api::{bad_query, store_failed},
    believed::believed_until,
    selection::key_of,
};
use crate::{
    policy::{
        Decision, Lookup, MissReason, Overrides, Request, StalePermission, Stored, ValidationReason,
        age::current_age,
        decide,
        freshness::{LifetimeSource, bounded_lifetime},
        select,
        validation::has_validator,
    },
    route::{Route, Target},
    settings::Kind,
    store::StoredResponse,
};

/// The answer of `GET /-/api/show`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShowPage {
    /// The version of this document; 1.
    pub schema: u32,
    /// The target URI, the same for all doors.
    pub url: String,
    /// The upstream that a request would be sent to; absent where none is configured any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream: Option<String>,
    /// Where it would be asked, in this order, without credentials.
    pub mirrors: Vec<String>,
    /// What a request with the given fields would get now.
    pub now: String,
    /// What is stored.
    pub responses: Vec<Explanation>,
}

/// One stored response and why it is as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The response.
    #[serde(flatten)]
    pub entry: EntryView,
    /// Whether the request selects this one.
    pub selected: bool,
    /// `fresh`, `stale`, or `invalidated` by an unsafe request or an operator.
    pub state: String,
    /// What says how long it is fresh.
    pub rule: String,
    /// Its freshness lifetime in seconds, after the bounds of the settings.
    pub lifetime_secs: i64,
    /// Its age in seconds.
    pub age_secs: i64,
    /// What is left, in seconds; negative is how long it has been stale.
    pub ttl_secs: i64,
    /// Whether it has an `ETag` or `Last-Modified`, by which the origin can say that it is unchanged.
    pub has_validator: bool,
    /// Whether its content was checked against a digest known in advance.
    pub known_digest: bool,
}

/// What a request would meet.
struct Facts {
    overrides: Overrides,
    now: Timestamp,
    headers: HeaderMap,
    /// Of a tag or a list of a registry: how long such a name is believed, before the spread.
    tag_ttl: Option<HumanDuration>,
}

impl Admin {
    /// `show`; `field` parameters (`Accept: text/html`) make the request that is judged.
    pub(super) async fn show(&self, query: &Query) -> Result<ShowPage, Problem> {
        let url = query.get("url");
        let router = self.pipeline.router();
        let key = key_of(router, url)?;
        let target = url
            .parse()
            .ok()
            .and_then(|uri| match router.route(&Method::GET, &uri) {
                Ok(Route::Target(target)) => Some(target),
                Ok(Route::Intercept { .. } | Route::Tunnel { .. } | Route::RegistryBase) | Err(_) => None,
            });
        let facts = Facts {
            overrides: target
                .as_ref()
                .map(|target| target.upstream.overrides(&target.path))
                .unwrap_or_default(),
            now: self.pipeline.now(),
            headers: fields(query)?,
            tag_ttl: target.as_ref().and_then(|target| tag_ttl(target)),
        };
        let rows = self.pipeline.store().list(key.clone(), String::new(), 1).await;
        let responses = rows
            .map_err(|error| store_failed(&error))?
            .into_iter()
            .find(|(found, _)| *found == key)
            .map(|(_, responses)| responses)
            .unwrap_or_default();
        let store = self.pipeline.store();
        let plain = key.strip_prefix("GET ").unwrap_or(&key);
        let mirrors = target.iter().flat_map(|target| &target.candidates);
        Ok(ShowPage {
            schema: 1,
            url: plain.to_owned(),
            upstream: target.as_ref().map(|target| target.upstream.name.to_string()),
            mirrors: mirrors.map(kato_shared::redact::url).collect(),
            now: self.outcome(&facts, &responses, target.is_some()),
            responses: explained(&facts, plain, &responses)
                .into_iter()
                .map(|mut one| {
                    one.entry.pinned = store.is_pinned(&key, &one.entry.digest);
                    one
                })
                .zip(&responses)
                .map(|(mut one, response)| {
                    let settings = self.pipeline.settings();
                    one.entry.believed_until = believed_until(settings, (plain, response), facts.now);
                    one
                })
                .collect(),
        })
    }

    /// What a request would get, in a sentence.
    fn outcome(&self, facts: &Facts, responses: &[StoredResponse], is_routed: bool) -> String {
        let heads = heads(responses);
        let request = facts.request();
        let decision = decide(&request, select(&request, &heads), &facts.overrides, facts.now).decision;
        let asks = if !is_routed {
            "no upstream would be asked, since none is configured for this URL"
        } else if self.pipeline.settings().offline {
            "no upstream would be asked, since offline = true"
        } else {
            "the upstream is asked"
        };
        said(decision, asks)
    }
}

impl Facts {
    fn request(&self) -> Request<'_> {
        Request {
            method: &Method::GET,
            headers: &self.headers,
        }
    }
}

fn heads(responses: &[StoredResponse]) -> Vec<Stored> {
    responses.iter().map(|response| response.head.clone()).collect()
}

fn explained(facts: &Facts, url: &str, responses: &[StoredResponse]) -> Vec<Explanation> {
    let heads = heads(responses);
    let selected = match select(&facts.request(), &heads) {
        Lookup::Found { index, .. } => Some(index),
        Lookup::Absent | Lookup::NoVariant => None,
    };
    responses
        .iter()
        .enumerate()
        .map(|(nth, response)| {
            let (lifetime, deviation) = bounded_lifetime(&response.head, &facts.overrides);
            let age = current_age(&response.head, facts.now);
            let is_beyond_doubt = response.head.known_digest || facts.overrides.immutable;
            let source = match lifetime.source {
                LifetimeSource::SMaxage => "s-maxage of the response",
                LifetimeSource::MaxAge => "max-age of the response",
                LifetimeSource::Expires => "Expires of the response",
                LifetimeSource::Heuristic => "a tenth of the time since Last-Modified",
                LifetimeSource::Unstated => "the response states no lifetime",
            };
            let rule = if response.head.known_digest {
                "its digest was known in advance".to_owned()
            } else if facts.overrides.immutable {
                "immutable in the settings of its upstream".to_owned()
            } else if let Some(ttl) = facts.tag_ttl.filter(|_| response.head.status.is_success()) {
                let lifetime = for_people(lifetime.duration.as_secs());
                format!("tag_ttl = {ttl} in the settings of its upstream, spread by a tenth to {lifetime}")
            } else {
                deviation.map_or_else(|| source.to_owned(), |deviation| format!("{source}; {deviation}"))
            };
            Explanation {
                entry: EntryView::of(url, response),
                selected: selected == Some(nth),
                state: match response.head.invalidated {
                    true => "invalidated",
                    false if is_beyond_doubt || lifetime.duration > age => "fresh",
                    false => "stale",
                }
                .to_owned(),
                rule,
                lifetime_secs: lifetime.duration.as_secs(),
                age_secs: age.as_secs(),
                ttl_secs: lifetime.duration.saturating_sub(age).as_secs(),
                has_validator: has_validator(&response.head),
                known_digest: response.head.known_digest,
            }
        })
        .collect()
}

/// How long `target`, where it is a name in a registry, is believed; `None` where something else in the settings says more.
fn tag_ttl(target: &Target) -> Option<HumanDuration> {
    let upstream = &target.upstream;
    let is_bounded = upstream.min_freshness.is_some() || upstream.max_freshness.is_some();
    let is_registry = upstream.kind == Kind::Registry && !is_bounded;
    upstream
        .registry
        .name_lifetime(&target.path)
        .filter(|_| is_registry)?;
    Some(upstream.registry.tag_ttl)
}

/// A decision as an operator reads it; `asking` says what becomes of asking.
fn said(decision: Decision, asking: &str) -> String {
    let because = match decision {
        Decision::Fresh(_) => return "answered from the store: fresh".into(),
        Decision::StaleServable { permission, .. } => {
            return match permission {
                StalePermission::MaxStale => {
                    "answered from the store: stale, and the request allows it".into()
                }
                StalePermission::WhileRevalidate => {
                    "answered from the store: stale, and validated in the background (stale-while-revalidate)"
                        .into()
                }
            };
        }
        Decision::GatewayTimeout => return "504: the request wants a stored response only".into(),
        Decision::Miss(MissReason::Uri) => "nothing is stored",
        Decision::Miss(MissReason::Vary) => "nothing is stored for these request fields",
        Decision::Bypass(_) => "only GET and HEAD are answered from the store",
        Decision::MustValidate { reason, .. } => match reason {
            ValidationReason::Stale => "stale",
            ValidationReason::Invalidated => "invalidated by an unsafe request or an operator",
            ValidationReason::ResponseNoCache => "the response says no-cache",
            ValidationReason::RequestNoCache => "the request says no-cache",
            ValidationReason::RequestMaxAge => "older than the request's max-age",
            ValidationReason::RequestMinFresh => "not fresh for as long as the request's min-fresh",
        },
    };
    format!("{asking}: {because}")
}

/// The `field` parameters, `Name: value` each.
fn fields(query: &Query) -> Result<HeaderMap, Problem> {
    let mut headers = HeaderMap::new();
    for text in query.all("field") {
        let field = text.split_once(':').and_then(|(name, value)| {
            let name = HeaderName::from_bytes(name.trim().as_bytes()).ok()?;
            Some((name, HeaderValue::from_str(value.trim()).ok()?))
        });
        let (name, value) = field
            .ok_or_else(|| bad_query(format!("`{text}` is no field"), "expected e.g. Accept: text/html"))?;
        headers.append(name, value);
    }
    Ok(headers)
}

/// A duration for people: `3d 4h`, `12m 5s`; negative ones with a sign.
pub fn for_people(secs: i64) -> String {
    let (sign, left) = (if secs < 0 { "-" } else { "" }, secs.unsigned_abs());
    let parts = [(86_400, "d"), (3600, "h"), (60, "m"), (1, "s")];
    let mut rest = left;
    let mut words = Vec::new();
    for (unit, name) in parts {
        if rest >= unit {
            words.push(format!("{}{name}", rest / unit));
            rest %= unit;
        }
    }
    words.truncate(2);
    if words.is_empty() {
        return "0s".into();
    }
    format!("{sign}{}", words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_short() {
        for (secs, text) in [
            (0, "0s"),
            (59, "59s"),
            (3600, "1h"),
            (-90, "-1m 30s"),
            (90_061, "1d 1h"),
            (i64::MIN, "-106751991167300d 15h"),
        ] {
            assert_eq!(for_people(secs), text);
        }
    }
}
