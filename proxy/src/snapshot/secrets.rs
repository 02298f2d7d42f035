//! What must not cross: which header fields may, and which parameters of queries.
//!
//! Both are lists of what may cross rather than of what may not: what nobody has thought of stays here. What no client of a mirror needs
//! is no loss; `Set-Cookie`, `Authorization` and whatever a vendor calls its token are. Parameters that an operator needs are named in the
//! settings of their upstream; a value that looks like a credential stays here even then.
//!
//! The same judgement ([`judge`]) is passed on what goes into a bundle and on what goes into the notes and request files of a mirror.

use std::{borrow::Cow, collections::BTreeMap};

use http::{HeaderMap, HeaderName, header};
use url::Url;

use crate::settings::Upstream;

/// Response fields about the representation, which clients of mirrors read.
const CARRIED: [&str; 26] = [
    "accept-ranges",
    "age",
    "allow",
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-md5",
    "content-type",
    "date",
    "digest",
    "etag",
    "expires",
    "last-modified",
    "link",
    "location",
    "repr-digest",
    "retry-after",
    "vary",
    "warning",
    "x-checksum-sha256",
    "x-content-type-options",
    "x-pypi-last-serial",
    "x-repodata-version",
];

/// Families of such fields: of registries for container images.
const CARRIED_FAMILIES: [&str; 2] = ["docker-", "oci-"];

/// Parameters that our doors have a use for: of registries (OCI distribution-spec, "Listing Tags", "Listing Referrers", and the `ns` of
/// containerd), and of Python's index.
const KNOWN_PARAMETERS: [&str; 5] = ["ns", "n", "last", "artifactType", "format"];

/// Parameters of a query that are secrets whatever the settings say, in lower case.
const SECRET_PARAMETERS: [&str; 12] = [
    "sig",
    "sign",
    "signature",
    "key-pair-id",
    "policy",
    "token",
    "auth",
    "hmac",
    "jwt",
    "password",
    "pwd",
    "apikey",
];

/// Parts of the name of such a parameter.
const SECRET_PARTS: [&str; 8] = [
    "x-amz-",
    "x-goog-",
    "signature",
    "credential",
    "secret",
    "token",
    "api_key",
    "access_key",
];

/// Parts of a value that say what it is, in lower case.
const SECRET_VALUES: [&str; 7] = ["hmac", "sig", "token", "secret", "passw", "bearer", "eyj"];

/// The longest value that may cross, in bytes: what a tag may have (OCI distribution-spec).
const LONGEST_VALUE: usize = 128;

/// Letters and digits in a row, both of them, from which on a value counts as random: 20 of hexadecimal are 80 bits.
const LONGEST_RUN: usize = 20;

/// Fields whose values are URLs.
const URLS: [HeaderName; 3] = [header::LOCATION, header::CONTENT_LOCATION, header::LINK];

/// Parts of the names of request fields that say who asks.
const CREDENTIAL_PARTS: [&str; 7] = [
    "auth",
    "cookie",
    "token",
    "secret",
    "session",
    "api-key",
    "credential",
];

/// Whether the response field `name`, in lower case, crosses.
pub(super) fn may_cross(name: &str) -> bool {
    CARRIED.contains(&name) || CARRIED_FAMILIES.iter().any(|family| name.starts_with(family))
}

/// Whether the request field `name`, in lower case, says who asks.
pub(super) fn is_credential(name: &str) -> bool {
    CREDENTIAL_PARTS.iter().any(|part| name.contains(part))
}

/// Which parameters the settings allow beside the known ones, by the name of the upstream.
#[derive(Debug, Clone, Default)]
pub struct Parameters(BTreeMap<String, Vec<String>>);

impl Parameters {
    /// Those of `upstreams`.
    pub fn of(upstreams: &[Upstream]) -> Self {
        let upstreams = upstreams.iter();
        Self(
            upstreams
                .map(|upstream| (upstream.name.to_string(), upstream.carried_parameters.clone()))
                .collect(),
        )
    }

    /// Those of the upstream `name`.
    pub fn by_name(&self, name: &str) -> &[String] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }
}

/// Why a URL stays here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Closed {
    /// It has a password, or a parameter that is a secret by its name or by the looks of its value.
    Secret,
    /// It has this parameter, which is not known, and which the settings do not allow.
    Unknown(String),
}

/// Whether `url` may cross where the settings allow `allowed` parameters.
///
/// # Errors
/// [`Closed`] when it may not; a secret comes before a parameter that is merely unknown.
pub fn judge(url: &str, allowed: &[String]) -> Result<(), Closed> {
    // What cannot be read cannot be judged.
    let url = Url::parse(url).map_err(|_unreadable| Closed::Secret)?;
    if url.password().is_some() || !url.username().is_empty() {
        return Err(Closed::Secret);
    }
    let mut unknown = None;
    for (name, value) in url.query_pairs() {
        if is_secret_name(&name) || looks_random(&value) {
            return Err(Closed::Secret);
        }
        let is_allowed = KNOWN_PARAMETERS.contains(&&*name) || allowed.iter().any(|known| *known == name);
        if !is_allowed && unknown.is_none() {
            unknown = Some(Closed::Unknown(name.into_owned()));
        }
    }
    unknown.map_or(Ok(()), Err)
}

fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET_PARAMETERS.contains(&name.as_str()) || SECRET_PARTS.iter().any(|part| name.contains(part))
}

/// Whether the value of a parameter may be a credential: it is long, says so, holds pairs itself, or has a long run of letters and digits.
fn looks_random(value: &str) -> bool {
    let lower = value.to_ascii_lowercase();
    let mut runs = value.split(|letter: char| !letter.is_ascii_alphanumeric());
    value.len() > LONGEST_VALUE
        || value.contains(['=', '~', '&', ';'])
        || SECRET_VALUES.iter().any(|part| lower.contains(part))
        || runs.any(|run| {
            let has = |is: fn(&u8) -> bool| run.bytes().any(|byte| is(&byte));
            let kinds = [u8::is_ascii_digit, u8::is_ascii_lowercase, u8::is_ascii_uppercase];
            run.len() >= LONGEST_RUN && kinds.into_iter().filter(|kind| has(*kind)).count() > 1
        })
}

/// Whether redirects and other addresses of a response that must be carried whole may cross.
///
/// # Errors
/// [`Closed`] with the first that may not.
pub(super) fn judge_redirect(headers: &HeaderMap, allowed: &[String]) -> Result<(), Closed> {
    let mut places = headers.get_all(header::LOCATION).iter();
    places.try_for_each(|place| judge_text(place.as_bytes(), allowed))
}

/// Whether the field `name` may cross with this value.
pub(super) fn is_open(name: &HeaderName, value: &[u8], allowed: &[String]) -> bool {
    match judge_text(value, allowed) {
        Ok(()) => true,
        Err(Closed::Secret) => false,
        // In other fields a question mark need not begin a query.
        Err(Closed::Unknown(_)) => !URLS.contains(name),
    }
}

/// Judges the URLs in the value of a field, absolute or relative.
fn judge_text(value: &[u8], allowed: &[String]) -> Result<(), Closed> {
    let text = String::from_utf8_lossy(value);
    text.split(['<', '>', '"', ' ', '\t', ','])
        .filter(|part| part.contains('?') || part.contains("://"))
        .try_for_each(|part| {
            let url = if part.contains("://") {
                Cow::Borrowed(part)
            } else {
                Cow::Owned(format!(
                    "http://relative.example/{}",
                    part.trim_start_matches('/')
                ))
            };
            judge(&url, allowed)
        })
}

/// `url` without what of it may be secret, for the place of a document whose relative links lead on from there.
pub(super) fn place(url: &Url) -> Url {
    let mut place = url.clone();
    place.set_query(None);
    let _no_host = place.set_username("").and_then(|()| place.set_password(None));
    place
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_in_queries_stay_here_whatever_they_are_called() {
        let random = "3f9c2e71ab04d85f6e11";
        for query in [
            "X-Amz-Signature=x",
            "sig=x&se=1",
            "token=x",
            "access_token=x",
            "apikey=x",
            "api_key=x",
            "password=x",
            "auth=x",
            "private_token=x",
            "jwt=x",
            "Policy=x&Key-Pair-Id=x",
            "hdnea=exp=1~hmac=x",
            "hash=x&expires=99",
            "e=1&h=x",
            "verify=1-x",
            "X-Goog-Credential=x",
            "__token__=x",
            "session=x",
            "key=x",
            "sv=1&%73ig=x",
            "st=x&e=12345",
            "X-Plex-Token=x",
            "code=x",
            "pw=x",
            "sas=x",
            "x",
            random,
        ] {
            let url = format!("https://cdn.example/a?{query}");
            assert!(judge(&url, &[]).is_err(), "{query}");
        }
        for url in [
            "https://user:pass@cdn.example/a",
            "https://user@cdn.example/a",
            "no URL?n=1",
        ] {
            assert_eq!(judge(url, &[]), Err(Closed::Secret), "{url}");
        }
    }

    #[test]
    fn parameters_cross_that_are_known_or_allowed_and_do_not_look_like_credentials() {
        let allowed = ["page".to_owned(), "hash".to_owned(), "token".to_owned()];
        for query in [
            "n=100&last=v1.2.3-rc.1",
            "ns=registry.example%3A5000",
            "artifactType=application%2Fvnd.example.sbom.v1%2Bjson",
            "format=json",
            "page=2",
            "hash=none",
            "page=",
        ] {
            assert_eq!(
                judge(&format!("https://m.example/a?{query}"), &allowed),
                Ok(()),
                "{query}"
            );
        }
        for query in [
            "hash=3f9c2e71ab04d85f6e11",
            "page=AbCdEfGhIjKlMnOpQrStUvWx",
            "page=exp~1",
            "page=1%3Bhmac%3D2",
            "last=eyJhbGciOiJub25lIn0.e30.",
            "ns=Bearer%20x",
            "token=x",
        ] {
            let url = format!("https://m.example/a?{query}");
            assert_eq!(judge(&url, &allowed), Err(Closed::Secret), "{query}");
        }
        let long = format!("https://m.example/a?page={}", "1".repeat(129));
        assert_eq!(judge(&long, &allowed), Err(Closed::Secret));
        assert_eq!(
            judge("https://m.example/a?page=2&sort=up", &allowed),
            Err(Closed::Unknown("sort".to_owned()))
        );
        // The names are those of the settings, letter by letter.
        assert_eq!(
            judge("https://m.example/a?Page=2", &allowed),
            Err(Closed::Unknown("Page".to_owned()))
        );
    }

    #[test]
    fn fields_that_name_closed_urls_are_known_wherever_the_url_stands() {
        let open = |name: HeaderName, value: &str| is_open(&name, value.as_bytes(), &[]);
        assert!(!open(header::LINK, "</next?token=abc>; rel=\"next\""));
        assert!(!open(header::LINK, "</next?cursor=abc>; rel=\"next\""));
        assert!(!open(header::LOCATION, "https://cdn.example/a?sig=1"));
        assert!(!open(header::ETAG, "\"https://cdn.example/a?sig=1\""));
        assert!(open(header::LINK, "</v2/a/tags/list?n=2>; rel=\"next\""));
        assert!(open(header::ETAG, "\"what?\""));
        assert!(open(header::CONTENT_TYPE, "text/html; charset=utf-8"));
        let at = Url::parse("https://user:pass@cdn.example/a/b?sig=1").unwrap();
        assert_eq!(place(&at).as_str(), "https://cdn.example/a/b");
    }

    #[test]
    fn only_fields_about_the_representation_cross() {
        for name in [
            "set-cookie",
            "authorization",
            "x-vendor-token",
            "www-authenticate",
            "server",
        ] {
            assert!(!may_cross(name), "{name}");
        }
        for name in ["etag", "docker-content-digest", "content-type", "oci-subject"] {
            assert!(may_cross(name), "{name}");
        }
        assert!(is_credential("authorization") && is_credential("x-session-id") && !is_credential("accept"));
    }
}
