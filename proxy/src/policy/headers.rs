//! Fields that belong to a hop rather than to a message, and the fields that we add: `Via`, `Date`, `Age`.
//!
//! Also the two readings that many modules share: an HTTP date, and membership in a list over all lines of a field.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Version, header, uri::Authority};
use jiff::{SignedDuration, Timestamp};

use super::{
    cache_control::{MAX_DELTA_SECONDS, split_list},
    http_date,
};

/// Fields that end at the next hop even when `Connection` does not name them ([RFC 9110 §7.6.1]). `Trailer` is here since
/// we pass on no trailer section.
///
/// [RFC 9110 §7.6.1]: https://www.rfc-editor.org/rfc/rfc9110#section-7.6.1
const HOP_BY_HOP: [HeaderName; 7] = [
    header::CONNECTION,
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("keep-alive"),
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Fields between a client and one proxy, which are neither stored (RFC 9111 §3.1) nor sent on.
pub const PROXY_FIELDS: [HeaderName; 3] = [
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("proxy-authentication-info"),
];

/// Fields by which a trusted gateway tells its server what the client asked for "really": another host, scheme, path or method. A
/// client that writes them itself changes the answer and not the cache key: what was made for it alone would be served to
/// everybody. No `Vary` protects, since the servers that obey them do not mention them. Names in lower case.
const GATEWAY_FIELDS: [&str; 26] = [
    "cf-connecting-ip",
    "client-ip",
    "fastly-client-ip",
    "fly-client-ip",
    "forwarded",
    "front-end-https",
    "x-custom-ip-authorization",
    "true-client-ip",
    "x-backend-host",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-forwarded",
    "x-forwarder-for",
    "x-host",
    "x-http-host-override",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-override-url",
    "x-proxy-url",
    "x-real-host",
    "x-real-ip",
    "x-request-uri",
    "x-scheme",
    "x-url-scheme",
    "x-wap-profile",
];

/// Families of such fields: `X-Forwarded-Host`, `X-Original-URL`, `X-Rewrite-URL` and their relatives.
const GATEWAY_FAMILIES: [&str; 3] = ["x-forwarded-", "x-original-", "x-rewrite-"];

/// Fields about the content of a request, and about waiting for it. A retrieval is sent on without content.
const CONTENT_FIELDS: [HeaderName; 5] = [
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::EXPECT,
];

/// Removes from a retrieval what could change the answer without being part of the cache key: fields of gateways, and those
/// that describe content ("content received in a GET request has no generally defined semantics", [RFC 9110 §9.3.1]).
///
/// [RFC 9110 §9.3.1]: https://www.rfc-editor.org/rfc/rfc9110#section-9.3.1
pub fn strip_unkeyed(headers: &mut HeaderMap) {
    let is_of_a_gateway = |name: &HeaderName| {
        let name = name.as_str();
        // Servers behind CGI and its relatives cannot tell `X_Forwarded_Host` from `X-Forwarded-Host`.
        if name.contains('_') {
            return true;
        }
        GATEWAY_FIELDS.contains(&name) || GATEWAY_FAMILIES.iter().any(|family| name.starts_with(family))
    };
    // Nearly every request has none: nothing is collected then.
    let found: Vec<HeaderName> = headers
        .keys()
        .filter(|name| is_of_a_gateway(name))
        .cloned()
        .collect();
    for name in found.iter().chain(&CONTENT_FIELDS) {
        headers.remove(name);
    }
}

/// Whether a request says who asks (`Authorization`, `Cookie`): what it gets may be for that one alone.
pub fn has_credentials(request: &HeaderMap) -> bool {
    request.contains_key(header::AUTHORIZATION) || request.contains_key(header::COOKIE)
}

/// Removes every hop-by-hop field, first those that any `Connection` line nominates.
///
/// "Intermediaries MUST parse a received Connection header field before a message is forwarded and, for each
/// connection-option in this field, remove any header or trailer field(s) from the message with the same name as the
/// connection-option, and then remove the Connection header field itself" — RFC 9110 §7.6.1.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let nominated: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|line| split_list(line.as_bytes()))
        .filter_map(|option| HeaderName::from_bytes(option).ok())
        .collect();
    for name in nominated.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

/// Appends our `Via` member: the version in which the message was *received*, and our pseudonym (RFC 9110 §7.6.3).
///
/// `pseudonym` must be a token or host and port; anything that is no field value is left out.
pub fn append_via(headers: &mut HeaderMap, received: Version, pseudonym: &str) {
    let version = match received {
        Version::HTTP_09 => "0.9",
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        Version::HTTP_3 => "3",
        _ => "1.1",
    };
    if let Ok(value) = HeaderValue::try_from(format!("{version} {pseudonym}")) {
        headers.append(header::VIA, value);
    }
}

/// Whether `Host` is as RFC 9112 §3.2 demands: in HTTP/1.1 exactly one, before that at most one, and no more in it than a host
/// and a port. It may be empty.
pub fn has_valid_host(version: Version, headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) => version < Version::HTTP_11,
        (Some(_), Some(_)) => false,
        (Some(host), None) if host.is_empty() => true,
        (Some(host), None) => {
            Authority::try_from(host.as_bytes()).is_ok_and(|host| !host.as_str().contains('@'))
        }
    }
}

/// True where `Via` shows that the message passed us before: a forwarding loop.
pub fn passed_us_before(headers: &HeaderMap, pseudonym: &str) -> bool {
    headers
        .get_all(header::VIA)
        .iter()
        .flat_map(|line| split_list(line.as_bytes()))
        .any(|member| {
            member
                .split(u8::is_ascii_whitespace)
                .filter(|word| !word.is_empty())
                .nth(1)
                .is_some_and(|received_by| received_by.eq_ignore_ascii_case(pseudonym.as_bytes()))
        })
}

/// How a request with `Max-Forwards` goes on ([RFC 9110 §7.6.2](https://www.rfc-editor.org/rfc/rfc9110#section-7.6.2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forwarding {
    /// To be sent on; the field, if it applied, counts one less.
    Onward,
    /// The count is used up: we are the final recipient.
    AnswerHere,
}

/// Counts `Max-Forwards` down for TRACE and OPTIONS; other methods and a broken number are left alone.
pub fn count_forward(method: &Method, headers: &mut HeaderMap) -> Forwarding {
    if method != Method::TRACE && method != Method::OPTIONS {
        return Forwarding::Onward;
    }
    let left = headers
        .get(header::MAX_FORWARDS)
        .and_then(|value| value.to_str().ok()?.parse::<u32>().ok());
    match left {
        None => Forwarding::Onward,
        Some(0) => Forwarding::AnswerHere,
        Some(left) => {
            headers.insert(header::MAX_FORWARDS, HeaderValue::from(left - 1));
            Forwarding::Onward
        }
    }
}

/// Sets the one `Age` of a response served from the store, in whole seconds, at most 2^31.
pub fn set_age(headers: &mut HeaderMap, age: SignedDuration) {
    let seconds = age.as_secs().clamp(0, i64::from(MAX_DELTA_SECONDS));
    headers.insert(header::AGE, HeaderValue::from(seconds));
}

/// Adds `Date` to a response that has none or a broken one; a valid one is the origin's and stays.
pub fn ensure_date(headers: &mut HeaderMap, now: Timestamp) {
    if single_date(headers, &header::DATE).is_none() {
        headers.insert(header::DATE, http_date(now));
    }
}

/// `now` as an IMF-fixdate (`Sun, 06 Nov 1994 08:49:37 GMT`, RFC 9110 §5.6.7); a time before 1970 is written as 1970.
pub fn http_date(now: Timestamp) -> HeaderValue {
    http_date::write(now)
}

/// The time in a field value, in any of the three forms of RFC 9110 §5.6.7; `None` for anything else.
pub fn parse_http_date(value: &HeaderValue) -> Option<Timestamp> {
    http_date::read(value)
}

/// The time in a field that must have one value: `None` where it is missing, broken, or repeated with other values.
pub fn single_date(headers: &HeaderMap, name: &HeaderName) -> Option<Timestamp> {
    let mut lines = headers.get_all(name).iter();
    let first = lines.next()?;
    if lines.any(|line| line != first) {
        return None;
    }
    parse_http_date(first)
}

/// True where any line of the list field `name` has `member`, compared without case.
pub fn list_contains(headers: &HeaderMap, name: &HeaderName, member: &[u8]) -> bool {
    headers
        .get_all(name)
        .iter()
        .any(|line| split_list(line.as_bytes()).any(|item| item.eq_ignore_ascii_case(member)))
}

#[cfg(test)]
mod tests;
