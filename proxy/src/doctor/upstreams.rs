//! One object of each upstream, through the server, and what its answer means.

use http::StatusCode;
use jiff::Timestamp;
use kato_shared::api::Problem;
use url::Url;

use super::{
    Check,
    clock::{skewed, upstream_clock},
    reach::fetched,
    sources::Suite,
};
use crate::{
    origin::{Probed, Prober},
    setup::{OfflineView, UpstreamView},
};

/// Problems of ours that say that an upstream, or the way to it, is away for now. What has to be mended here (TLS, an address that is not allowed) is none of
/// them.
const AWAY: [&str; 3] = [
    "urn:kato:problem:upstream-unreachable",
    "urn:kato:problem:upstream-timeout",
    "urn:kato:problem:upstream-busy",
];

/// Has `upstream` probed by what the first of these suites that leads to it must have, rather than by a folder.
pub(super) fn prefer_document(upstream: &mut UpstreamView, suites: &[Suite]) {
    let found = suites
        .iter()
        .find(|suite| upstream.is_folder && suite.in_release.path().starts_with(&upstream.path));
    if let Some(suite) = found {
        suite.in_release.path().clone_into(&mut upstream.probe);
        upstream.must_be_there = true;
        upstream.is_folder = false;
    }
}

/// An object of an upstream, and the upstream's clock.
pub(super) async fn object(
    server: &Url,
    prober: &Prober,
    (upstream, now): (&UpstreamView, &impl Fn() -> Timestamp),
) -> Vec<Check> {
    let subject = format!("upstream {}", upstream.name);
    let answer = fetched(server, prober, (&upstream.probe, "*/*")).await;
    match answer {
        Ok(answer) if is_closed(&answer) => vec![door(server, prober, subject).await],
        Ok(answer) => {
            let skew = upstream_clock(&answer, now()).map(|ahead| skewed(&subject, ahead));
            let mut checks = vec![if let Some(check) = away(&subject, &answer, upstream) {
                check
            } else if let Some(check) = absent(&subject, &answer, upstream) {
                check
            } else if upstream.is_folder && is_not_listed(&answer) {
                let said = format!("answers {} for a folder that it does not list", answer.status);
                Check::ok(&subject, said)
            } else {
                judged(&subject, &answer, upstream.must_be_there)
            }];
            checks.extend(skew.flatten());
            checks
        }
        Err(error) => vec![Check::failed(subject, error, "does the server still run?")],
    }
}

/// Whether clients of that upstream, a registry, have to say who they are.
fn is_closed(answer: &Probed) -> bool {
    serde_json::from_slice::<Problem>(&answer.body)
        .is_ok_and(|problem| problem.kind == Problem::REGISTRY_DOOR)
}

/// What such clients hear first.
async fn door(server: &Url, prober: &Prober, subject: String) -> Check {
    match fetched(server, prober, ("/v2/", "*/*")).await {
        Ok(answer) if answer.status == StatusCode::UNAUTHORIZED => Check::ok(
            subject,
            "asks clients for the credentials of a user (registry.users_file), without which nothing more is known",
        ),
        Ok(answer) => judged(&subject, &answer, true),
        Err(error) => Check::failed(subject, error, "does the server still run?"),
    }
}

/// What a server that asks no origin has of an upstream. Nothing that it has not is asked for: it would be noted as missed.
pub(super) async fn held(
    server: &Url,
    prober: &Prober,
    (upstream, offline): (&UpstreamView, &OfflineView),
) -> Check {
    let subject = format!("upstream {}", upstream.name);
    let Some((snapshot, count)) = offline.snapshot.as_ref().zip(upstream.held) else {
        return Check::ok(subject, "no origin is asked: what the store holds is served");
    };
    if count == 0 {
        return Check::warning(
            subject,
            format!("no origin is asked, and the snapshot {snapshot} has nothing below its URL"),
            "record it where there is a network, and import a bundle that has it",
        );
    }
    let said = format!("no origin is asked: {count} responses of the snapshot {snapshot} are served");
    if upstream.probe.is_empty() {
        return Check::ok(subject, said);
    }
    let answer = fetched(server, prober, (&upstream.probe, "*/*")).await;
    match answer {
        Ok(answer) if answer.status.is_success() => Check::ok(subject, said),
        Ok(answer) => judged(&subject, &answer, true),
        Err(error) => Check::failed(subject, error, "does the server still run?"),
    }
}

/// What is to be said of an upstream that does not answer while content of it is served; `None` where that is not so.
fn away(subject: &str, answer: &Probed, upstream: &UpstreamView) -> Option<Check> {
    let hint = "what is stored of it is served, however stale; what is not is not to be had until it answers";
    if cache_status(answer).contains("stale-if-error") {
        let said = format!("does not answer; `{}` was served from the store", upstream.probe);
        return Some(Check::warning(subject, said, hint));
    }
    if upstream.holds != Some(true) {
        return None;
    }
    let problem = serde_json::from_slice::<Problem>(&answer.body)
        .ok()
        .filter(Problem::is_own);
    let said = match problem {
        Some(problem) if AWAY.contains(&problem.kind.as_str()) => problem.detail,
        None if answer.status.is_server_error() => format!("the upstream answers {}", answer.status),
        Some(_) | None => return None,
    };
    Some(Check::warning(subject, said, hint))
}

/// Our own member of `Cache-Status`, the last one.
fn cache_status(answer: &Probed) -> &str {
    let mut lines = answer.headers.get_all("cache-status").iter();
    let ours = lines.next_back().and_then(|line| line.to_str().ok());
    ours.unwrap_or_default()
}

/// What is to be said where the upstream has not what it was asked for, of whatever kind it is; `None` where that is not so.
fn absent(subject: &str, answer: &Probed, upstream: &UpstreamView) -> Option<Check> {
    let is_own = || serde_json::from_slice::<Problem>(&answer.body).is_ok_and(|problem| problem.is_own());
    if !matches!(answer.status, StatusCode::NOT_FOUND | StatusCode::GONE) || is_own() {
        return None;
    }
    let probe = upstream
        .probe
        .strip_prefix(&upstream.path)
        .unwrap_or(&upstream.probe);
    let said = format!("answers {} for `{probe}`", answer.status);
    let hint = "are kind and urls of this upstream right, its path included? servers of its kind have that below its URL";
    Some(match (upstream.must_be_there, upstream.is_folder) {
        (true, _) => Check::failed(subject, said, hint),
        (false, false) => Check::warning(subject, said, hint),
        // Files may be there all the same.
        (false, true) => Check::ok(subject, format!("{said}, a folder")),
    })
}

/// Whether `answer`, about a folder, is the upstream's "not for you to list".
fn is_not_listed(answer: &Probed) -> bool {
    let is_own = || serde_json::from_slice::<Problem>(&answer.body).is_ok_and(|problem| problem.is_own());
    answer.status == StatusCode::FORBIDDEN && !is_own()
}

/// An answer by the cache: a problem of its own is a failure, an upstream's "not found" is an answer, unless it `must_be_there`.
pub(super) fn judged(subject: &str, answer: &Probed, must_be_there: bool) -> Check {
    let problem = serde_json::from_slice::<Problem>(&answer.body)
        .ok()
        .filter(Problem::is_own);
    if let Some(problem) = problem {
        let hint = problem
            .hint
            .unwrap_or_else(|| "see the log of the server".to_owned());
        return Check::failed(subject, problem.detail, hint);
    }
    let status = answer.status;
    let said = format!("the upstream answers {status}");
    if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        let hint = "clients need credentials for it, or the server needs others than it has: `credentials_file` in the settings of this upstream";
        return if must_be_there {
            Check::failed(subject, said, hint)
        } else {
            Check::warning(subject, said, hint)
        };
    }
    if status.is_server_error() || must_be_there && !status.is_success() {
        return Check::failed(subject, said, "ask the upstream's operator");
    }
    Check::ok(subject, format!("answers {status} ({})", cache_status(answer)))
}

#[cfg(test)]
mod tests {
    use super::{super::State, *};

    #[test]
    fn credentials_that_are_missing_are_named_whatever_is_asked_for() {
        for (status, must_be_there, state, hint) in [
            (401, true, State::Failed, "credentials"),
            (403, false, State::Warning, "credentials"),
            (404, true, State::Failed, "operator"),
            (404, false, State::Ok, ""),
            (500, false, State::Failed, "operator"),
        ] {
            let answer = Probed {
                status: StatusCode::from_u16(status).unwrap(),
                headers: http::HeaderMap::new(),
                body: Vec::new(),
            };
            let check = judged("upstream a", &answer, must_be_there);
            assert_eq!(check.state, state, "{status}");
            assert!(check.hint.unwrap_or_default().contains(hint), "{status}");
        }
    }

    #[test]
    fn an_upstream_that_is_away_is_a_warning_as_long_as_content_of_it_is_served() {
        let view = |holds: Option<bool>| UpstreamView {
            name: "a".into(),
            kind: crate::settings::Kind::Npm,
            path: "/a/".into(),
            probe: "/a/-/ping".into(),
            must_be_there: false,
            is_folder: false,
            held: None,
            holds,
            tag_ttl: None,
        };
        let answer = |status: u16, kind: &str, ours: &'static str| {
            Probed {
            status: StatusCode::from_u16(status).unwrap(),
            headers: http::HeaderMap::from_iter([(
                http::HeaderName::from_static("cache-status"),
                http::HeaderValue::from_static(ours),
            )]),
            body: format!(
                r#"{{"type":"urn:kato:problem:{kind}","title":"","status":{status},"detail":"no connection"}}"#
            )
            .into_bytes(),
        }
        };
        for (holds, status, kind, ours, is_warning) in [
            (
                Some(true),
                502,
                "upstream-unreachable",
                "kato; fwd=uri-miss",
                true,
            ),
            (Some(true), 504, "upstream-timeout", "kato; fwd=uri-miss", true),
            (Some(true), 502, "upstream-tls", "kato; fwd=uri-miss", false),
            (Some(true), 502, "address-refused", "kato; fwd=uri-miss", false),
            (
                Some(false),
                502,
                "upstream-unreachable",
                "kato; fwd=uri-miss",
                false,
            ),
            (None, 502, "upstream-unreachable", "kato; fwd=uri-miss", false),
            (Some(false), 200, "", "kato; hit; detail=stale-if-error", true),
            (Some(true), 200, "", "kato; hit", false),
        ] {
            let check = away("upstream a", &answer(status, kind, ours), &view(holds));
            let state = check.map(|check| check.state);
            assert_eq!(
                state,
                is_warning.then_some(State::Warning),
                "{holds:?} {status} {kind} {ours}"
            );
        }
    }

    #[test]
    fn an_archive_is_asked_for_what_a_source_of_this_machine_names() {
        let suite = |url: &str| Suite {
            name: "stable".into(),
            in_release: url.parse().unwrap(),
            options: crate::doctor::sources::Options::default(),
        };
        let folder = UpstreamView {
            name: "deb".into(),
            kind: crate::settings::Kind::Packages,
            path: "/deb/".into(),
            probe: "/deb/dists/".into(),
            must_be_there: false,
            is_folder: true,
            held: None,
            holds: None,
            tag_ttl: None,
        };
        let mut upstream = folder.clone();
        prefer_document(
            &mut upstream,
            &[suite("http://cache.site/other/dists/a/InRelease")],
        );
        assert_eq!(upstream, folder);
        prefer_document(&mut upstream, &[suite("http://cache.site/deb/dists/a/InRelease")]);
        assert_eq!(upstream.probe, "/deb/dists/a/InRelease");
        assert!(upstream.must_be_there && !upstream.is_folder);
    }
}
