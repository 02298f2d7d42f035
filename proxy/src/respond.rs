//! Errors as answers: a status code and a problem detail (RFC 9457). The only place that does this, so that what a client
//! learns is decided once; causes of our own are logged, not sent.

use http::{HeaderValue, Response, StatusCode, header};
use kato_shared::{api::Problem, chain::Chain};

use crate::{
    deliver::Payload,
    ecosystem::unserved::Unserved,
    fill::FillError,
    offline::Noted,
    origin::{ErrorKind, OriginError},
    pipeline::OutOfPlace,
    registry,
    route::{RouteError, Target},
};

/// When to come again after an overload: answers take milliseconds, downloads minutes.
const RETRY_AFTER_SECONDS: u16 = 5;

/// The answer for a problem.
pub fn problem(problem: &Problem) -> Response<Payload> {
    let body = serde_json::to_vec(problem).unwrap_or_default();
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = Response::new(Payload::bytes(body));
    *response.status_mut() = status;
    // For doors whose clients expect another form.
    response.extensions_mut().insert(problem.clone());
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static(Problem::MEDIA_TYPE),
    );
    // An error of this moment must not be kept by a cache below us.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A problem of a kind, for a subject.
pub fn describe(
    kind: &str,
    title: &str,
    status: StatusCode,
    detail: String,
    hint: Option<String>,
) -> Problem {
    Problem {
        kind: format!("urn:kato:problem:{kind}"),
        title: title.into(),
        status: status.as_u16(),
        detail,
        hint,
    }
}

/// The client's address is not in `access.clients`.
pub fn client_refused(client: std::net::IpAddr) -> Problem {
    describe(
        "client-refused",
        "client not allowed",
        StatusCode::FORBIDDEN,
        format!("clients at {client} are not answered"),
        Some("add the client's network to clients in the section [access] of proxy.toml".into()),
    )
}

/// The client's address is not in the `clients` of the upstream.
pub fn upstream_closed(client: std::net::IpAddr, upstream: &str) -> Problem {
    describe(
        "upstream-closed",
        "client not allowed",
        StatusCode::FORBIDDEN,
        format!("clients at {client} may not have what comes from `{upstream}`"),
        Some("add the client's network to clients of that [[upstream]] in proxy.toml".into()),
    )
}

/// The upstream is a registry whose clients have to say who they are, which only the door `/v2/` asks them.
pub fn by_the_registry_door(upstream: &str) -> Problem {
    describe(
        "registry-door",
        "credentials needed",
        StatusCode::FORBIDDEN,
        format!("registry.users_file is set: the registry `{upstream}` is reached by /v2/{upstream}/… alone"),
        Some("ask for /v2/, with the credentials of a user".into()),
    )
}

/// The request has no route.
pub fn unrouted(error: &RouteError) -> Problem {
    let detail = error.to_string();
    match error {
        RouteError::UnknownHost { host } => describe(
            "host-refused",
            "host not configured",
            StatusCode::FORBIDDEN,
            detail,
            Some(format!(
                "add [[upstream]] with a name and urls = [\"https://{host}/\"] to proxy.toml, or --upstream NAME=https://{host}/"
            )),
        ),
        RouteError::TunnelPort { .. } => describe(
            "tunnel-refused",
            "port not configured",
            StatusCode::FORBIDDEN,
            detail,
            Some("name the port in the urls of the upstream".into()),
        ),
        RouteError::UnknownUpstream { .. } => describe(
            "upstream-unknown",
            "no such upstream",
            StatusCode::NOT_FOUND,
            detail,
            Some("mirror paths are /<upstream>/… and /<scheme>/<host>/…; `kato-proxy check-config` lists the upstreams".into()),
        ),
        RouteError::Registry(refused) => registry::refused(refused),
        RouteError::TwoRegistries => describe(
            "registry-name-invalid",
            "more than one registry named",
            StatusCode::BAD_REQUEST,
            detail,
            Some("name one registry: ?ns=REGISTRY once".into()),
        ),
        RouteError::BadTarget { .. } => {
            describe("bad-target", "target not usable", StatusCode::BAD_REQUEST, detail, None)
        }
    }
}

/// The answer where the upstream gave none; with `Retry-After` where it told when to ask again.
pub fn no_upstream(url: &str, error: &OriginError) -> Response<Payload> {
    let mut response = problem(&upstream_failed(url, error));
    if error.kind() == ErrorKind::Busy {
        let seconds = error.retry_after().map_or(1, |wait| wait.as_secs().max(1));
        let seconds = HeaderValue::from(seconds);
        response.headers_mut().insert(header::RETRY_AFTER, seconds);
    }
    response
}

/// The answer where what is stored must not be used without validation, and the upstream was not reached: "the cache MUST generate
/// an error response rather than reuse …  504" ([RFC 9111 §5.2.2.2](https://www.rfc-editor.org/rfc/rfc9111#section-5.2.2.2)).
pub fn not_validated(url: &str, error: &OriginError) -> Response<Payload> {
    if error.kind() != ErrorKind::Unreachable {
        return no_upstream(url, error);
    }
    let failed = upstream_failed(url, error);
    problem(&describe(
        "upstream-unreachable",
        "upstream not reached, and what is stored must be validated",
        StatusCode::GATEWAY_TIMEOUT,
        failed.detail,
        Some(
            "what is stored forbids to be used while its upstream cannot be asked; ask again when it can"
                .into(),
        ),
    ))
}

/// The upstream gave no answer that could be used.
pub fn upstream_failed(url: &str, error: &OriginError) -> Problem {
    let (kind, title, status) = match error.kind() {
        ErrorKind::Unreachable if error.is_tls() => (
            "upstream-tls",
            "TLS with the upstream failed",
            StatusCode::BAD_GATEWAY,
        ),
        ErrorKind::Timeout => (
            "upstream-timeout",
            "upstream too slow",
            StatusCode::GATEWAY_TIMEOUT,
        ),
        ErrorKind::Unreachable => (
            "upstream-unreachable",
            "upstream not reached",
            StatusCode::BAD_GATEWAY,
        ),
        ErrorKind::BadResponse => (
            "upstream-response",
            "upstream answer not usable",
            StatusCode::BAD_GATEWAY,
        ),
        // The client has asked for nothing wrong: the upstream, or what it is called here, leads there.
        ErrorKind::Guarded => (
            "address-refused",
            "upstream leads to an address that is not allowed",
            StatusCode::BAD_GATEWAY,
        ),
        ErrorKind::Busy => (
            "upstream-busy",
            "upstream overloaded",
            StatusCode::SERVICE_UNAVAILABLE,
        ),
    };
    let hint = match error.kind() {
        ErrorKind::Guarded if matches!(error, OriginError::RedirectHost { .. }) => {
            "add the host to redirect_hosts of the upstream if its files are meant to come from there"
        }
        ErrorKind::Guarded => {
            "if it is meant, put the address itself in the place of the name in the urls of the upstream; that of a redirect into the urls of an upstream of its own"
        }
        ErrorKind::Busy => "ask again later",
        ErrorKind::Unreachable if error.is_tls() => {
            "where its certificate is of an authority of your own, `ca_file` of the upstream names that; a server shows a certificate of its own, and not the authority's (CA:TRUE)"
        }
        ErrorKind::BadResponse if matches!(error, OriginError::Realm { .. }) => {
            "if that is where its tokens come from, add the host to token_hosts in [upstream.registry] of proxy.toml; credentials are shown nowhere else"
        }
        ErrorKind::BadResponse => {
            "the upstream, or a proxy before it, has to be mended; nothing usable is stored"
        }
        ErrorKind::Timeout | ErrorKind::Unreachable => {
            "nothing usable is stored; ask again when the upstream answers"
        }
    };
    describe(
        kind,
        title,
        status,
        format!("{url}: {}", Chain(error)),
        Some(hint.into()),
    )
}

/// The content is not what its URL promises, twice.
pub fn mismatch(url: &str, error: &FillError) -> Problem {
    describe(
        "digest-mismatch",
        "upstream content is not what its URL promises",
        StatusCode::BAD_GATEWAY,
        format!("{url}: {error}"),
        Some("it was fetched twice and nothing was stored; the upstream, or a cache on the way, has other content under this name".into()),
    )
}

/// Offline, and the request is one that only an origin can answer.
pub fn offline(url: &str) -> Problem {
    describe(
        "offline",
        "not stored, and offline",
        StatusCode::GATEWAY_TIMEOUT,
        format!("{url} would have to be asked for upstream, and this proxy runs with --offline"),
        Some("ask a proxy that runs without --offline".into()),
    )
}

/// Offline, and not held: 404, since for the clients of this server it does not exist. `snapshot` is the one that is served, if it is one.
pub fn not_held(url: &str, snapshot: Option<&str>, why: &dyn std::fmt::Display, noted: Noted) -> Problem {
    const WAY: &str = "`kato-proxy request` writes down what is missing, and `kato-proxy prefetch --request FILE` fetches it where there is a network";
    let hint = match noted {
        Noted::Kept => format!("it was noted: {WAY}"),
        Noted::Coming => format!("it is being noted: {WAY}"),
        Noted::Not(why) => {
            format!("it is not noted: {why}; `kato-proxy request --add URL` asks for a URL that nobody noted")
        }
    };
    let held = snapshot.map_or("the store".to_owned(), |name| format!("snapshot {name}"));
    describe(
        "offline",
        "not held, and offline",
        StatusCode::NOT_FOUND,
        format!("{url} is not in {held}: {why}; this proxy runs with --offline"),
        Some(hint),
    )
}

/// The client wanted a stored response only (RFC 9111 §5.2.1.7).
pub fn only_if_cached(url: &str) -> Problem {
    describe(
        "only-if-cached",
        "not stored",
        StatusCode::GATEWAY_TIMEOUT,
        format!("{url} is not stored, and the request says only-if-cached"),
        None,
    )
}

/// The request came back to us.
pub fn loops(url: &str) -> Problem {
    describe(
        "loop",
        "forwarding loop",
        StatusCode::LOOP_DETECTED,
        format!("{url} passed this proxy before"),
        Some("an upstream's address leads back to this proxy".into()),
    )
}

/// The request's content cannot be taken.
pub fn bad_content(detail: String) -> Problem {
    describe(
        "bad-content",
        "request content not usable",
        StatusCode::BAD_REQUEST,
        detail,
        None,
    )
}

/// The request's content is larger than is taken.
pub fn content_too_large(most: kato_shared::settings::ByteSize) -> Problem {
    describe(
        "content-too-large",
        "request content too large",
        StatusCode::PAYLOAD_TOO_LARGE,
        format!("a request may have {most} of content"),
        Some("request_content in the section [limits] of proxy.toml is the bound".into()),
    )
}

/// A client that nothing can be said to.
pub fn not_set_up(detail: &str) -> Problem {
    describe(
        "not-set-up",
        "no such client, or nothing for it",
        StatusCode::NOT_FOUND,
        detail.into(),
        Some("/-/setup/ lists the clients that there is something for".into()),
    )
}

/// What is asked for beside content.
pub fn unserved(why: Unserved, upstream: &str) -> Response<Payload> {
    let (title, status, hint) = match why {
        Unserved::Upload => (
            "nothing can be published through a cache",
            StatusCode::METHOD_NOT_ALLOWED,
            "publish to the index itself, and only install through this server".to_owned(),
        ),
        Unserved::ReadOnly => (
            "nothing is written through a cache",
            StatusCode::METHOD_NOT_ALLOWED,
            "push, publish and delete at the server itself; requests of other kinds than GET and HEAD go to upstreams of kind \"generic\" alone"
                .to_owned(),
        ),
        Unserved::Git => (
            "git is not served",
            StatusCode::NOT_FOUND,
            format!(
                "use the sparse index: registry = \"sparse+…/{upstream}/\"; fetch repositories from their own host"
            ),
        ),
        Unserved::Audit => (
            "audits are not served",
            StatusCode::NOT_FOUND,
            "set audit=false in npmrc; a cache has no database of advisories".to_owned(),
        ),
    };
    let detail = if why == Unserved::ReadOnly {
        format!(
            "content of the upstream `{upstream}` is read by GET and HEAD through this cache, and not changed"
        )
    } else {
        format!("the upstream `{upstream}` is an index of packages, and GET and HEAD are what installs them")
    };
    let mut response = problem(&describe("unserved", title, status, detail, Some(hint)));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        let allow = HeaderValue::from_static("GET, HEAD");
        response.headers_mut().insert(header::ALLOW, allow);
    }
    response
}

/// An index names a host for its archives that nothing is known of.
pub fn archives_unknown(url: &str, archives: &str) -> Problem {
    describe(
        "archives-unknown",
        "archives at a host that is not configured",
        StatusCode::BAD_GATEWAY,
        format!("{url} says that archives are at {archives}, a host of no configured upstream"),
        Some(format!(
            "add [[upstream]] with a name, kind = \"generic\" and urls = [\"{archives}\"] to proxy.toml"
        )),
    )
}

/// A document whose links have to be rewritten is none.
pub fn document_unusable(url: &str, error: &(dyn std::error::Error + 'static)) -> Problem {
    describe(
        "document-unusable",
        "upstream document not usable",
        StatusCode::BAD_GATEWAY,
        format!("{url}: {}", Chain(error)),
        Some(
            "is the kind of the upstream right? rewrite_links = false passes its documents on as they are"
                .into(),
        ),
    )
}

/// More requests than are answered at once.
pub fn overloaded(reason: &dyn std::error::Error) -> Response<Payload> {
    let mut response = problem(&describe(
        "overloaded",
        "too many requests",
        StatusCode::SERVICE_UNAVAILABLE,
        reason.to_string(),
        None,
    ));
    response
        .headers_mut()
        .insert(header::RETRY_AFTER, RETRY_AFTER_SECONDS.into());
    response
}

/// Not one valid `Host` field.
pub fn bad_host() -> Problem {
    describe(
        "bad-host",
        "host not usable",
        StatusCode::BAD_REQUEST,
        "expected one Host field with a host and perhaps a port (RFC 9112 §3.2)".into(),
        None,
    )
}

/// A request inside an opened CONNECT that is not about its host.
pub fn out_of_place(error: &OutOfPlace) -> Problem {
    let (status, hint) = match error {
        OutOfPlace::Host => return bad_host(),
        OutOfPlace::Nested { .. } => (
            StatusCode::METHOD_NOT_ALLOWED,
            "ask this proxy for another CONNECT, beside this one",
        ),
        OutOfPlace::Misdirected { .. } => (
            StatusCode::MISDIRECTED_REQUEST,
            "open a connection for each host (RFC 9110 §15.5.20)",
        ),
    };
    let (kind, detail) = (error.kind(), error.to_string());
    describe(kind, "request out of place", status, detail, Some(hint.into()))
}

/// A request that came over TLS would go on in clear.
pub fn inside_in_clear(target: &Target) -> Problem {
    describe(
        "inside-in-clear",
        "would be asked for in clear",
        StatusCode::FORBIDDEN,
        format!("{} was asked for over TLS", target.key.uri()),
        Some(format!(
            "give every URL of the upstream `{}` https://",
            target.upstream.name
        )),
    )
}

/// CONNECT cannot be opened for a host that it should be opened for.
pub fn not_opened(authority: &str) -> Problem {
    describe(
        "not-opened",
        "no certificate",
        StatusCode::INTERNAL_SERVER_ERROR,
        format!("there is no certificate for {authority}"),
        Some("the log of the proxy says why; mirror paths work without".into()),
    )
}

/// The end of a tunnel cannot be reached.
///
/// Off-spec: a host that may be asked for and leads to an address that is not allowed is a fault of the upstream, as it is for a request, and no
/// refusal of this client's (RFC 9110 §9.3.6 names none).
pub fn tunnel_failed(authority: &str, error: &OriginError) -> Problem {
    let mut problem = upstream_failed(authority, error);
    if matches!(error.kind(), ErrorKind::Unreachable | ErrorKind::Timeout) {
        problem.hint = Some(
            "a tunnel needs its host and keeps nothing; with intercept = true of its upstream, what is stored is served"
                .into(),
        );
    }
    problem
}
