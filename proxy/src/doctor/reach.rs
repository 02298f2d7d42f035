//! Asking: the name service, the port, the server, and through it each upstream and each suite of this machine's sources.

use std::path::PathBuf;

use http::header;
use jiff::Timestamp;
use tokio::{
    net::{TcpStream, lookup_host},
    time::{Duration, Instant, timeout},
};
use url::Url;

use super::{
    Check, Report,
    clock::clock,
    environment::environment,
    files::{self, NpmFile},
    sources::{Suite, keys, validity},
    trust::certificate,
    upstreams::{held, judged, object, prefer_document},
};
use crate::{
    archive_keys::{self, ring},
    origin::{Probed, Prober},
    policy::headers::single_date,
    setup::SetupPage,
};

/// For a connection within a site.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is known about this machine.
#[derive(Debug, Default)]
pub struct Machine {
    /// Variables with values that are not empty.
    pub variables: Vec<(String, String)>,
    /// apt's settings, all files one after the other.
    pub apt_settings: String,
    /// The path of this user's own list of container registries, if there is one.
    pub own_registries: Option<String>,
    /// npm's settings, and files that are some other npm's.
    pub npmrc: Vec<NpmFile>,
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
    checks.extend(files::npm(&machine.npmrc, server));
    let read = machine.npmrc.iter().filter(|file| file.is_read);
    let npmrc: String = read.flat_map(|file| [file.text.as_str(), "\n"]).collect();
    checks.extend(environment(server, variable, is_tls.then_some(npmrc.as_str())));
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
    for beside in &page.beside_users {
        checks.push(Check::warning("users", beside.to_string(), beside.hint()));
    }
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
pub(super) async fn fetched(
    server: &Url,
    prober: &Prober,
    (path, accept): (&str, &str),
) -> Result<Probed, String> {
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
