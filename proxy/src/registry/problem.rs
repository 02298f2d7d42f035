//! Problems in the words of the distribution specification ("Error codes"), which container clients show to people.

use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use kato_shared::api::Problem;
use serde_json::json;

use super::{Guest, Leave};
use crate::{
    deliver::Payload, ecosystem::oci::PathError, respond, route::Target, seldom::warn_seldom,
    settings::Upstream,
};

/// The field by which old clients know a registry.
pub(super) const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");

/// The challenge where name and secret are shown themselves (RFC 7617).
const BASIC: HeaderValue = HeaderValue::from_static("Basic realm=\"kato\", charset=\"UTF-8\"");

/// When to come again with a password: seconds, far more than it takes to verify one.
pub(super) const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// The value of [`API_VERSION`].
pub(super) const fn api_version() -> HeaderValue {
    HeaderValue::from_static("registry/2.0")
}

/// Why a request at the door leads nowhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// No upstream has that name.
    #[error("no registry is called `{name}` here")]
    Unknown {
        /// The name in the request.
        name: String,
    },
    /// The request names none.
    #[error("the request names no registry, and there is no default one")]
    NoDefault,
    /// The path breaks the specification.
    #[error("`{path}` cannot be asked for: {source}")]
    Path {
        /// The path.
        path: String,
        /// What is wrong with it.
        #[source]
        source: PathError,
    },
    /// The method would change something.
    #[error("this is a cache of registries: content can be pulled from it, not pushed or deleted")]
    ReadOnly,
}

/// The problem for `refused`.
pub(crate) fn refused(refused: &Refused) -> Problem {
    let detail = refused.to_string();
    let (kind, title, status, hint) = match refused {
        Refused::Unknown { name } => (
            "registry-unknown",
            "no such registry",
            StatusCode::NOT_FOUND,
            Some(format!(
                "add [[upstream]] with kind = \"registry\" for it to proxy.toml, or \"{name}\" to the aliases of one"
            )),
        ),
        Refused::NoDefault => (
            "registry-unknown",
            "no registry named",
            StatusCode::NOT_FOUND,
            Some("ask for /v2/REGISTRY/…, add ?ns=REGISTRY, or set default in the section [registry] of proxy.toml".into()),
        ),
        Refused::Path { source, .. } => {
            let (kind, status) = match source {
                PathError::Name => ("registry-name-invalid", StatusCode::BAD_REQUEST),
                PathError::Reference => ("registry-manifest-invalid", StatusCode::BAD_REQUEST),
                PathError::Digest => ("registry-digest-invalid", StatusCode::BAD_REQUEST),
                PathError::NoEndpoint => ("registry-unsupported", StatusCode::NOT_FOUND),
            };
            (kind, "path not usable", status, None)
        }
        Refused::ReadOnly => (
            "registry-unsupported",
            "read only",
            StatusCode::METHOD_NOT_ALLOWED,
            Some("push to the registry itself".into()),
        ),
    };
    respond::describe(kind, title, status, detail, hint)
}

/// The client has not shown that it may use the door.
pub(crate) fn unauthorized() -> Problem {
    respond::describe(
        "registry-unauthorized",
        "credentials needed",
        StatusCode::UNAUTHORIZED,
        "this registry cache wants the credentials of one of its own users".into(),
        Some("log in with the name and secret that the operator of the cache gives".into()),
    )
}

/// Whether `guest` may pull `target`.
///
/// # Errors
/// The problem that says that it may not, or not with this token.
pub(crate) fn leave(guest: &Guest, target: &Target) -> Result<(), Problem> {
    let Some(place) = &target.registry else {
        return Ok(());
    };
    let repository = format!("{}/{}", target.upstream.name, place.repository);
    let named = (!place.repository.is_empty()).then_some(repository.as_str());
    match guest.leave(named) {
        Leave::Granted => Ok(()),
        Leave::OtherToken => Err(respond::describe(
            "registry-scope",
            "token of another scope",
            StatusCode::UNAUTHORIZED,
            format!("the token is not for `{repository}`"),
            Some("ask /-/token for the scope that the challenge names".into()),
        )),
        Leave::Denied => Err(respond::describe(
            "registry-denied",
            "not for this user",
            StatusCode::FORBIDDEN,
            format!("this user may not pull `{repository}` from this cache"),
            Some("registry.rights of proxy.toml says who may pull what".into()),
        )),
    }
}

/// The upstream does not let us have it, or does not say whether there is anything.
pub(super) fn upstream_denied(upstream: &Upstream, repository: &str) -> Problem {
    let name = upstream.name.as_str();
    let wanted = if repository.is_empty() {
        "its lists of repositories".to_owned()
    } else {
        format!("`{repository}`")
    };
    let rules = &upstream.registry;
    let (why, hint) = match rules.credentials_file.as_ref().or(rules.docker_config.as_ref()) {
        Some(file) => {
            // Where things are on this host is nothing for clients.
            warn_seldom!(upstream = name, %wanted, file = %file.display(), "the registry does not take the credentials of that file for this, or there is no such thing");
            (
                "it does not take the credentials that this cache has for it, or there is no such thing",
                "the cache's operator puts the name and password of somebody who may pull it into the file that the log of the cache names",
            )
        }
        None => (
            "it is private, or does not exist",
            "set credentials_file in [upstream.registry] of proxy.toml where it is private",
        ),
    };
    respond::describe(
        "registry-denied",
        "refused by the registry",
        StatusCode::FORBIDDEN,
        format!("the registry `{name}` does not give {wanted} to this cache: {why}"),
        Some(hint.into()),
    )
}

/// Too many passwords of this client wait to be verified.
pub(crate) fn crowded() -> Problem {
    respond::describe(
        "registry-crowded",
        "too many passwords at once",
        StatusCode::TOO_MANY_REQUESTS,
        "several passwords that this client has shown are being verified already".into(),
        Some("ask again in a second".into()),
    )
}

/// What is held cannot be read by the client.
pub(super) fn cannot_read(held: &str) -> Problem {
    respond::describe(
        "registry-manifest-unknown",
        "not in an accepted form",
        StatusCode::NOT_FOUND,
        format!("the manifest is of the type {held}, which the request does not accept"),
        None,
    )
}

/// Puts a problem of ours into the form of the specification: `{"errors":[{"code","message","detail"}]}`. `challenge` says where
/// tokens come from, if they do.
pub(crate) fn speak(response: &mut Response<Payload>, challenge: Option<&str>) {
    response.headers_mut().insert(API_VERSION, api_version());
    let Some(problem) = response.extensions_mut().remove::<Problem>() else {
        return;
    };
    let code = code(&problem);
    // All that most clients show.
    let message = match &problem.hint {
        Some(hint) => format!("{} (hint: {hint})", problem.detail),
        None => problem.detail.clone(),
    };
    let body = json!({ "errors": [{
        "code": code,
        "message": message,
        "detail": { "title": problem.title, "detail": problem.detail, "hint": problem.hint, "type": problem.kind },
    }]});
    *response.body_mut() = Payload::bytes(body.to_string().into_bytes());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if problem.status == StatusCode::METHOD_NOT_ALLOWED.as_u16() {
        headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    if problem.status == StatusCode::TOO_MANY_REQUESTS.as_u16() {
        headers.insert(header::RETRY_AFTER, RETRY_AFTER);
    }
    if problem.status == StatusCode::UNAUTHORIZED.as_u16() {
        let is_of_another = problem.kind.ends_with(":registry-scope");
        let error = if is_of_another {
            ",error=\"insufficient_scope\""
        } else {
            ""
        };
        let bearer = challenge.and_then(|text| HeaderValue::try_from(format!("{text}{error}")).ok());
        headers.insert(header::WWW_AUTHENTICATE, bearer.unwrap_or(BASIC));
    }
}

/// The code of the specification for a problem; words of our own where it has none.
fn code(problem: &Problem) -> &'static str {
    match problem.kind.rsplit(':').next().unwrap_or_default() {
        "registry-unknown" => "NAME_UNKNOWN",
        "registry-name-invalid" => "NAME_INVALID",
        "registry-manifest-invalid" => "MANIFEST_INVALID",
        "registry-manifest-unknown" | "offline" => "MANIFEST_UNKNOWN",
        "registry-digest-invalid" | "digest-mismatch" => "DIGEST_INVALID",
        "registry-unsupported" => "UNSUPPORTED",
        "registry-unauthorized" | "registry-scope" => "UNAUTHORIZED",
        _ => code_of(StatusCode::from_u16(problem.status).unwrap_or_default()),
    }
}

/// The code of the specification for an error of which only the status code is known.
pub(super) fn code_of(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 => "UNAUTHORIZED",
        403 => "DENIED",
        404 => "NAME_UNKNOWN",
        405 => "UNSUPPORTED",
        429 | 503 => "TOOMANYREQUESTS",
        400..=499 => "INVALID",
        _ => "UNAVAILABLE",
    }
}
