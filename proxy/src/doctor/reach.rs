//! Asking: the name service, the port, the server, and through it one object of each upstream.

use std::path::PathBuf;

use http::{StatusCode, header};
use jiff::Timestamp;
use kato_shared::api::Problem;
use tokio::{
    net::{TcpStream, lookup_host},
    time::{Duration, Instant, timeout},
};
use url::Url;

use super::{
    Check, Report,
    environment::environment,
    files,
    sources::{Suite, keys, validity},
};
use crate::{
    archive_keys::{self, ring},
    origin::{Probed, Prober},
    policy::headers::single_date,
    setup::{OfflineView, SetupPage, UpstreamView},
};

/// For a connection within a site.
const PATIENCE: Duration = Duration::from_secs(5);
/// apt refuses what was signed more than this in its future.
const APT_TOLERANCE_SECONDS: i64 = 10;
/// Certificates and signatures begin to fail somewhere here.
const CLOCK_TOLERANCE_SECONDS: i64 = 300;

/// What is known about this machine.
#[derive(Debug, Default)]
pub struct Machine {
    /// Variables with values that are not empty.
    pub variables: Vec<(String, String)>,
    /// apt's settings, all files one after the other.
    pub apt_settings: String,
    /// The path of this user's own list of container registries, if there is one.
    pub own_registries: Option<String>,
    /// npm's settings, all files one after the other.
    pub npmrc: String,
    /// The certificates that this machine trusts, in PEM.
    pub trusted: String,
    /// apt's sources that lead to the server.
    pub suites: Vec<Suite>,
    /// Keyrings of archives.
    pub keyrings: Vec<PathBuf>,
}

/// Looks at everything, as a client of `server` on `machine` at the time that `now` tells.
pub async fn examine(server: &Url, machine: &Machine, now: impl Fn() -> Timestamp) -> Report {
    let mut checks = Vec::new();
    let is_tls = ask(server, machine, &now, &mut checks).await || server.scheme() == "https";
    let variable = |name: &str| {
        let found = machine.variables.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.clone())
    };
    checks.extend(files::apt(&machine.apt_settings));
    checks.extend(files::containers(machine.own_registries.as_deref()));
    let npmrc = is_tls.then_some(machine.npmrc.as_str());
    checks.extend(environment(server, variable, npmrc));
    Report {
        schema: 1,
        server: server.to_string(),
        checks,
    }
}

/// Stops at the first failure after which nothing can be asked. Whether a certificate of the server's is in use.
async fn ask(server: &Url, machine: &Machine, now: &impl Fn() -> Timestamp, checks: &mut Vec<Check>) -> bool {
    if !connects(server, checks).await {
        return false;
    }
    let prober = match Prober::new() {
        Ok(prober) => prober,
        Err(error) => {
            checks.push(Check::failed(
                "TLS",
                error,
                "are there certificates on this machine?",
            ));
            return false;
        }
    };
    let Some(mut page) = page(server, &prober, now, checks).await else {
        return false;
    };
    for upstream in &mut page.upstreams {
        if let Some(offline) = &page.offline {
            checks.push(held(server, &prober, (upstream, offline)).await);
            continue;
        }
        prefer_document(upstream, &machine.suites);
        checks.extend(object(server, &prober, (upstream, now)).await);
    }
    if let Some(path) = &page.certificate {
        checks.push(certificate(server, &prober, path, &machine.trusted).await);
    }
    let ring = if machine.suites.is_empty() {
        Vec::new()
    } else {
        ring(&machine.keyrings).await
    };
    for suite in &machine.suites {
        let check = match prober.get(&suite.in_release, "*/*").await {
            Ok(answer) if answer.status.is_success() => {
                let text = String::from_utf8_lossy(&answer.body);
                let own = match suite.options.signed_by.as_slice() {
                    [] => None,
                    named => Some(archive_keys::ring(named).await),
                };
                checks.extend(keys(suite, &text, own.as_ref().unwrap_or(&ring), now()));
                validity(suite, &text, now())
            }
            Ok(answer) => judged(&format!("apt {}", suite.name), &answer, true),
            Err(error) => Check::failed(format!("apt {}", suite.name), error, "is the source's URI right?"),
        };
        checks.push(check);
    }
    page.certificate.is_some()
}

/// Has `upstream` probed by what the first of these suites that leads to it must have, rather than by a folder.
fn prefer_document(upstream: &mut UpstreamView, suites: &[Suite]) {
    let found = suites
        .iter()
        .find(|suite| upstream.is_folder && suite.in_release.path().starts_with(&upstream.path));
    if let Some(suite) = found {
        suite.in_release.path().clone_into(&mut upstream.probe);
        upstream.must_be_there = true;
        upstream.is_folder = false;
    }
}

/// Name and port.
async fn connects(server: &Url, checks: &mut Vec<Check>) -> bool {
    let host = server.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let port = server.port_or_known_default().unwrap_or(80);
    let started = Instant::now();
    let addresses: Vec<_> = match timeout(PATIENCE, lookup_host((host, port))).await {
        Ok(Ok(addresses)) => addresses.collect(),
        Ok(Err(error)) => {
            let said = format!("{host}: {error}");
            checks.push(Check::failed(
                "name",
                said,
                "is the name right, and does the name service of this machine know it?",
            ));
            return false;
        }
        Err(_elapsed) => {
            let said = format!(
                "{host}: no answer of the name service in {} s",
                PATIENCE.as_secs()
            );
            checks.push(Check::failed(
                "name",
                said,
                "does the name service of this machine answer?",
            ));
            return false;
        }
    };
    let names: Vec<String> = addresses.iter().map(|address| address.ip().to_string()).collect();
    checks.push(Check::ok(
        "name",
        format!(
            "{host} is {} ({} ms)",
            names.join(", "),
            started.elapsed().as_millis()
        ),
    ));
    let started = Instant::now();
    let connected = timeout(PATIENCE, TcpStream::connect(addresses.as_slice())).await;
    let why = match connected {
        Ok(Ok(_connection)) => {
            let said = format!("port {port} answers ({} ms)", started.elapsed().as_millis());
            checks.push(Check::ok("connection", said));
            return true;
        }
        Ok(Err(error)) => error.to_string(),
        Err(_elapsed) => format!("no answer in {} s", PATIENCE.as_secs()),
    };
    let said = format!("port {port}: {why}");
    checks.push(Check::failed(
        "connection",
        said,
        "is kato-proxy running there, and no firewall between?",
    ));
    false
}

/// The answer of `server` about `path`, in the form `accept`.
async fn fetched(server: &Url, prober: &Prober, (path, accept): (&str, &str)) -> Result<Probed, String> {
    let url = server.join(path).map_err(|error| error.to_string())?;
    prober.get(&url, accept).await
}

/// What the server says about itself, and its clock.
async fn page(
    server: &Url,
    prober: &Prober,
    now: &impl Fn() -> Timestamp,
    checks: &mut Vec<Check>,
) -> Option<SetupPage> {
    let hint = "is that the address for clients of a kato-proxy?";
    let answer = fetched(server, prober, ("/-/setup/", "application/json")).await;
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => {
            checks.push(Check::failed("answer", error, hint));
            return None;
        }
    };
    if !answer.status.is_success() {
        checks.push(judged("answer", &answer, true));
        return None;
    }
    let Ok(page) = serde_json::from_slice::<SetupPage>(&answer.body) else {
        checks.push(Check::failed(
            "answer",
            "something else than a kato-proxy answers there",
            hint,
        ));
        return None;
    };
    let said = format!("a kato-proxy with {} upstreams", page.upstreams.len());
    checks.push(Check::ok("answer", said));
    if let Some(date) = single_date(&answer.headers, &header::DATE) {
        checks.push(clock(now().as_second() - date.as_second()));
    }
    Some(page)
}

/// This machine's clock, so many seconds ahead of the server's.
fn clock(ahead: i64) -> Check {
    let said = match ahead {
        0 => "as the server's".to_owned(),
        1.. => format!("{ahead} s ahead of the server's"),
        ..0 => format!("{} s behind the server's", -ahead),
    };
    let hint = "set the clock of this machine or of the server";
    if ahead.abs() > CLOCK_TOLERANCE_SECONDS {
        Check::failed("clock", said, hint)
    } else if ahead.abs() > APT_TOLERANCE_SECONDS {
        Check::warning("clock", said, hint)
    } else {
        Check::ok("clock", said)
    }
}

/// An object of an upstream, and the upstream's clock.
async fn object(
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
            let mut checks = vec![if let Some(check) = absent(&subject, &answer, upstream) {
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
async fn held(server: &Url, prober: &Prober, (upstream, offline): (&UpstreamView, &OfflineView)) -> Check {
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

/// How far, in seconds, this machine's clock is ahead of the upstream's, where the answer is one of the upstream: `Date` says when it was
/// made, and `Age` how long ago that is (RFC 9111 §4.2.3).
fn upstream_clock(answer: &Probed, now: Timestamp) -> Option<i64> {
    // A problem of the cache has its own date.
    if serde_json::from_slice::<Problem>(&answer.body).is_ok_and(|problem| problem.is_own()) {
        return None;
    }
    let date = single_date(&answer.headers, &header::DATE)?;
    let age = answer.headers.get(header::AGE);
    let age = age.and_then(|age| age.to_str().ok()?.parse::<i64>().ok());
    Some(now.as_second() - date.as_second().saturating_add(age.unwrap_or(0)))
}

/// What is to be said about that.
fn skewed(subject: &str, ahead: i64) -> Option<Check> {
    let said = match ahead {
        0.. => format!("the upstream's clock is {ahead} s behind this machine's"),
        ..0 => format!("the upstream's clock is {} s ahead of this machine's", -ahead),
    };
    let hint = "signatures and certificates of the upstream are judged by this machine's clock: set it, or have the upstream's set";
    (ahead.abs() > CLOCK_TOLERANCE_SECONDS).then(|| Check::warning(format!("{subject} clock"), said, hint))
}

/// An answer by the cache: a problem of its own is a failure, an upstream's "not found" is an answer, unless it `must_be_there`.
fn judged(subject: &str, answer: &Probed, must_be_there: bool) -> Check {
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
        let hint = "clients need credentials for it, or the server needs others than it has: see the settings of this upstream";
        return if must_be_there {
            Check::failed(subject, said, hint)
        } else {
            Check::warning(subject, said, hint)
        };
    }
    if status.is_server_error() || must_be_there && !status.is_success() {
        return Check::failed(subject, said, "ask the upstream's operator");
    }
    let mut lines = answer.headers.get_all("cache-status").iter();
    let ours = lines
        .next_back()
        .and_then(|line| line.to_str().ok())
        .unwrap_or_default();
    Check::ok(subject, format!("answers {status} ({ours})"))
}

async fn certificate(server: &Url, prober: &Prober, path: &str, trusted: &str) -> Check {
    let subject = "certificate";
    let answer = fetched(server, prober, (path, "*/*")).await;
    match answer {
        Ok(answer) if answer.status.is_success() => {
            if is_among(&String::from_utf8_lossy(&answer.body), trusted) {
                Check::ok(subject, "the server's authority is trusted by this machine")
            } else {
                Check::warning(
                    subject,
                    "the server's authority is not among those that this machine trusts",
                    "clients that use the server as a proxy need it: /-/setup/env says how; mirror paths do not",
                )
            }
        }
        Ok(answer) => judged(subject, &answer, true),
        Err(error) => Check::failed(subject, error, "does the server still run?"),
    }
}

/// Whether the first certificate of `pem` stands in `bundle`, however its lines are broken.
fn is_among(pem: &str, bundle: &str) -> bool {
    let bodies = |text: &str| -> Vec<String> {
        let parts = text.split("-----BEGIN CERTIFICATE-----").skip(1);
        parts
            .filter_map(|part| {
                part.split_once("-----END")
                    .map(|(body, _)| body.split_whitespace().collect())
            })
            .collect()
    };
    bodies(pem)
        .first()
        .is_some_and(|ours| bodies(bundle).contains(ours))
}

#[cfg(test)]
mod tests {
    use super::{super::State, *};

    #[test]
    fn a_clock_that_apt_refuses_is_a_warning_and_one_that_tls_refuses_a_failure() {
        for (ahead, state) in [
            (0, State::Ok),
            (-10, State::Ok),
            (11, State::Warning),
            (-301, State::Failed),
        ] {
            assert_eq!(clock(ahead).state, state, "{ahead}");
        }
    }

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
    fn an_upstream_with_another_time_is_named_whatever_the_age_of_its_answer() {
        let now: Timestamp = "2026-01-01T12:00:00Z".parse().unwrap();
        for (date, age, body, expected) in [
            ("Thu, 01 Jan 2026 12:00:00 GMT", None, "", None),
            ("Thu, 01 Jan 2026 11:00:00 GMT", Some("3600"), "", None),
            ("Thu, 01 Jan 2026 11:00:00 GMT", None, "", Some("behind")),
            ("Thu, 01 Jan 2026 12:30:00 GMT", Some("60"), "", Some("ahead")),
        ] {
            let mut headers = http::HeaderMap::new();
            headers.insert(header::DATE, date.parse().unwrap());
            if let Some(age) = age {
                headers.insert(header::AGE, age.parse().unwrap());
            }
            let answer = Probed {
                status: StatusCode::OK,
                headers,
                body: body.into(),
            };
            let check = upstream_clock(&answer, now).and_then(|ahead| skewed("upstream a", ahead));
            assert_eq!(check.is_some(), expected.is_some(), "{date} {age:?}");
            if let (Some(check), Some(word)) = (check, expected) {
                assert!(check.said.contains(word), "{}", check.said);
            }
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

    #[test]
    fn a_certificate_is_found_however_its_lines_are_broken() {
        let pem = |body: &str| format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n");
        let bundle = format!("{}{}", pem("AAAA\nBBBB"), pem("CCCCDD\nDD"));
        assert!(is_among(&pem("CCCC\nDDDD"), &bundle));
        assert!(!is_among(&pem("CCCC"), &bundle));
        assert!(!is_among("", &bundle));
    }
}
