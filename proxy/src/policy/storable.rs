//! May a response be stored? [RFC 9111 §3], §3.3 and §3.5, for a shared cache.
//!
//! [RFC 9111 §3]: https://www.rfc-editor.org/rfc/rfc9111#section-3

use std::fmt;

use http::{HeaderMap, Method, StatusCode, header};

use super::{
    Overrides, Request, SetCookie,
    cache_control::{FieldScope, RequestDirectives, ResponseDirectives},
    headers::{has_credentials, list_contains},
    targeted::{self, Effective},
};

/// Whether a response may enter the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storability {
    /// Yes, by RFC 9111.
    Store,
    /// Yes, against what the response says, since its content is known not to change. To be logged.
    StoreDespite(NoStoreReason),
    /// No.
    NoStore(NoStoreReason),
}

impl Storability {
    /// True for both kinds of yes.
    pub fn may_store(self) -> bool {
        !matches!(self, Self::NoStore(_))
    }
}

/// Why a response may not be stored. Display is a short text for logs and `Cache-Status`'s `detail`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoStoreReason {
    /// The method is not one whose responses we store (only GET).
    Method,
    /// An interim response (1xx).
    NotFinal,
    /// A 304 updates a stored response; it is not one.
    NotModified,
    /// A 206 or 416: part of a representation is never stored as the whole.
    Partial,
    /// The request says `no-store`.
    RequestNoStore,
    /// The response says `no-store`.
    ResponseNoStore,
    /// The response says `must-understand` and we do not know its status code.
    NotUnderstood,
    /// The response is for one user.
    Private,
    /// The request has `Authorization` and the response does not allow sharing (§3.5).
    Authorization,
    /// The response sets a cookie and does not say that it may be kept.
    SetCookie,
    /// `Vary: *`: no later request would match.
    VaryAny,
    /// A 511: the network answered, and not the origin (RFC 6585 §6).
    Network,
    /// It is no answer about the document that was asked for: it takes no 200's place, and nobody gets it later.
    Unusable,
    /// No explicit freshness, and a status code without heuristic freshness.
    NotCacheableByDefault,
}

impl fmt::Display for NoStoreReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Method => "method",
            Self::NotFinal => "interim response",
            Self::NotModified => "304 updates, it is not stored",
            Self::Partial => "partial content",
            Self::RequestNoStore => "no-store in the request",
            Self::ResponseNoStore => "no-store in the response",
            Self::NotUnderstood => "must-understand with an unknown status code",
            Self::Private => "private",
            Self::Authorization => "authorized request without permission to share",
            Self::SetCookie => "set-cookie",
            Self::VaryAny => "vary *",
            Self::Network => "answered by a network on the way",
            Self::Unusable => "no usable answer about the document",
            Self::NotCacheableByDefault => "no freshness stated for this status code",
        })
    }
}

/// Decides whether the response (`status`, `response`) to `request` may be stored.
///
/// `known_digest` says that the content will be checked against a digest known in advance. Then, or where
/// [`Overrides::immutable`] holds, a 200 is stored whatever the response says about itself, unless the request has credentials
/// (`Authorization`, `Cookie`); a client's `no-store` is honoured all the same.
pub fn storability(
    request: &Request<'_>,
    (status, response): (StatusCode, &HeaderMap),
    known_digest: bool,
    overrides: &Overrides,
) -> Storability {
    if let Some(reason) = unstorable_kind(request, status) {
        return Storability::NoStore(reason);
    }
    // What is known about content says nothing about who may have it: what credentials brought stays with them.
    let is_known = known_digest || overrides.immutable;
    match forbidden(request, status, response, overrides) {
        None => Storability::Store,
        Some(reason) if status == StatusCode::OK && is_known && !has_credentials(request.headers) => {
            Storability::StoreDespite(reason)
        }
        Some(reason) => Storability::NoStore(reason),
    }
}

/// Whether a response with `status`, which is not stored for `reason`, may be handed to everybody who waited for it without credentials,
/// as the request with the fields `request` did.
///
/// [RFC 9111 §4](https://www.rfc-editor.org/rfc/rfc9111#section-4) allows that of what "is stored or storable", such as a 404 that would only
/// take a better answer's place. Off-spec: errors that merely state no freshness are handed on, too; who waited asked before they were made.
pub fn is_for_all_who_wait(request: &HeaderMap, status: StatusCode, reason: NoStoreReason) -> bool {
    let is_error = status.is_client_error() || status.is_server_error();
    let is_harmless = match reason {
        NoStoreReason::Unusable => true,
        NoStoreReason::NotCacheableByDefault => is_error,
        NoStoreReason::Method
        | NoStoreReason::NotFinal
        | NoStoreReason::NotModified
        | NoStoreReason::Partial
        | NoStoreReason::RequestNoStore
        | NoStoreReason::ResponseNoStore
        | NoStoreReason::NotUnderstood
        | NoStoreReason::Private
        | NoStoreReason::Authorization
        | NoStoreReason::SetCookie
        | NoStoreReason::VaryAny
        | NoStoreReason::Network => false,
    };
    is_harmless && !has_credentials(request)
}

/// What no knowledge about the content can outweigh.
fn unstorable_kind(request: &Request<'_>, status: StatusCode) -> Option<NoStoreReason> {
    // "the request method is understood by the cache": we store what answers GET; a HEAD has no content to store.
    if request.method != Method::GET {
        return Some(NoStoreReason::Method);
    }
    // "the response status code is final".
    if status.is_informational() {
        return Some(NoStoreReason::NotFinal);
    }
    if status == StatusCode::NOT_MODIFIED {
        return Some(NoStoreReason::NotModified);
    }
    // "A cache MUST NOT use an incomplete response to answer requests unless the response has been made complete" (§3.3).
    // Elsewhere "the Content-Range header field has no meaning for status codes that do not explicitly describe its
    // semantic" (RFC 9110 §14.4), and a 416 is about the range that one client asked for.
    if matches!(
        status,
        StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE
    ) {
        return Some(NoStoreReason::Partial);
    }
    // "Responses with the 511 status code MUST NOT be stored by a cache" (RFC 6585 §6).
    if status == StatusCode::NETWORK_AUTHENTICATION_REQUIRED {
        return Some(NoStoreReason::Network);
    }
    RequestDirectives::of(request.headers)
        .no_store
        .then_some(NoStoreReason::RequestNoStore)
}

/// What the response, or the rules about it, forbid.
pub(super) fn forbidden(
    request: &Request<'_>,
    status: StatusCode,
    response: &HeaderMap,
    overrides: &Overrides,
) -> Option<NoStoreReason> {
    let Effective { directives, targeted } = targeted::effective(response, &overrides.targeted_fields);
    if directives.must_understand {
        // "the cache SHOULD ignore no-store if it understands and implements the status code's caching requirements" (§5.2.2.3).
        if !is_understood(status) {
            return Some(NoStoreReason::NotUnderstood);
        }
    } else if directives.no_store {
        return Some(NoStoreReason::ResponseNoStore);
    }
    // "if the cache is shared: the private response directive is either not present or allows a shared cache to store
    // a modified response".
    if directives.private == FieldScope::Whole {
        return Some(NoStoreReason::Private);
    }
    if request.headers.contains_key(header::AUTHORIZATION) && !allows_sharing(&directives) {
        return Some(NoStoreReason::Authorization);
    }
    let explicit =
        directives.has_explicit_lifetime() || (!targeted && response.contains_key(header::EXPIRES));
    // Off-spec, stricter: RFC 9111 §7.3 leaves it to servers to say that a cookie is not to be shared. Many say nothing at all,
    // and a cookie that reaches another client is a session given away; so a guess at freshness is not enough here.
    let may_share_cookie = match overrides.set_cookie {
        SetCookie::Always => true,
        SetCookie::Explicit => explicit || directives.public,
        SetCookie::Public => directives.public || directives.s_maxage.is_some(),
    };
    if response.contains_key(header::SET_COOKIE) && !may_share_cookie {
        return Some(NoStoreReason::SetCookie);
    }
    if list_contains(response, &header::VARY, b"*") {
        return Some(NoStoreReason::VaryAny);
    }
    let allowed = directives.public || explicit || is_heuristically_cacheable(status);
    (!allowed).then_some(NoStoreReason::NotCacheableByDefault)
}

/// "a shared cache MUST NOT use a cached response to a request with an Authorization header field … unless the response
/// contains a Cache-Control field with a response directive that allows it: must-revalidate, public, s-maxage" (§3.5).
fn allows_sharing(directives: &ResponseDirectives) -> bool {
    directives.must_revalidate || directives.public || directives.s_maxage.is_some()
}

/// Status codes "defined as heuristically cacheable" ([RFC 9110 §15.1]), without 206, which is never stored here.
///
/// [RFC 9110 §15.1]: https://www.rfc-editor.org/rfc/rfc9110#section-15.1
pub fn is_heuristically_cacheable(status: StatusCode) -> bool {
    matches!(
        status.as_u16(),
        200 | 203 | 204 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501
    )
}

/// Status codes whose caching requirements we know: all final ones of RFC 9110 that a whole response may have.
fn is_understood(status: StatusCode) -> bool {
    matches!(
        status.as_u16(),
        200..=205 | 300..=303 | 305 | 307 | 308 | 400..=417 | 421 | 422 | 426 | 500..=505
    )
}

#[cfg(test)]
mod tests;
