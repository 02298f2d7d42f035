//! Content negotiation with registries: we ask for every form of manifest, keep the bytes with their media type by digest, and a
//! client that cannot read what is held is told so.
//!
//! A registry that chooses by `Accept` says so only sometimes (`Vary`). Asked in the words of whichever client came first, it
//! would give the next client, which reads more, the lesser form; and a key with `Accept` in it would hold each manifest once
//! for each client program.

use http::{HeaderMap, HeaderValue, header};

use super::Class;
use crate::route::Target;

/// Every form of manifest and index that is in use, the newer first.
const MANIFESTS: HeaderValue = HeaderValue::from_static(
    "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json, \
     application/vnd.oci.artifact.manifest.v1+json, */*;q=0.1",
);

/// The form of the answer about referrers.
const INDEX: HeaderValue = HeaderValue::from_static("application/vnd.oci.image.index.v1+json");

/// The media types that a client reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Accepts(Vec<(String, bool)>);

impl Accepts {
    /// What `headers` say; nothing said is everything.
    fn of(headers: &HeaderMap) -> Self {
        let ranges = headers
            .get_all(header::ACCEPT)
            .iter()
            .filter_map(|line| line.to_str().ok())
            .flat_map(|line| line.split(','))
            .filter_map(|range| {
                let mut parts = range.split(';').map(str::trim);
                let name = parts.next().filter(|name| !name.is_empty())?;
                // "A sender of qvalue MUST NOT generate more than three digits": a weight of zero is "not acceptable".
                let is_wanted = !parts
                    .filter_map(|part| part.strip_prefix("q="))
                    .any(|weight| weight.parse::<f32>().is_ok_and(|weight| weight <= 0.0));
                Some((name.to_ascii_lowercase(), is_wanted))
            });
        Self(ranges.collect())
    }

    /// Whether content with the type in `headers` can be read; the most specific range decides (RFC 9110 §12.5.1).
    pub(super) fn allow(&self, headers: &HeaderMap) -> bool {
        let Some(held) = media_type(headers) else {
            return true;
        };
        if self.0.is_empty() {
            return true;
        }
        let family = held.split('/').next().unwrap_or_default();
        [held.as_str(), &format!("{family}/*"), "*/*"]
            .iter()
            .find_map(|wanted| self.0.iter().find(|(range, _)| range == wanted))
            .is_some_and(|(_, is_wanted)| *is_wanted)
    }
}

/// The media type of `Content-Type`, without parameters, in lower case.
pub(super) fn media_type(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    Some(text.split(';').next()?.trim().to_ascii_lowercase())
}

/// Whether `headers` call the content a manifest or an index of them: bytes that were stored as a blob have no such type.
pub(crate) fn is_manifest(headers: &HeaderMap) -> bool {
    media_type(headers).is_some_and(|held| held.contains("manifest") || held.contains("image.index"))
}

/// Brings a request about a registry into the form in which all ask, and returns what this client reads.
///
/// A coding (`Accept-Encoding`) would make other bytes than those that the digest is of. Credentials stay only where a client
/// speaks to the registry itself, by its own name and without an account of ours in between.
pub(crate) fn prepare(target: &Target, headers: &mut HeaderMap) -> Option<Accepts> {
    let place = target.registry.as_ref()?;
    if place.door.is_some() || target.upstream.registry.reads_files() {
        headers.remove(header::AUTHORIZATION);
        headers.remove(header::COOKIE);
    }
    if place.class == Class::Other {
        return None;
    }
    headers.remove(header::ACCEPT_ENCODING);
    let accepts = place.class.is_manifest().then(|| Accepts::of(headers));
    match place.class {
        Class::Tag | Class::Manifest => headers.insert(header::ACCEPT, MANIFESTS),
        Class::Referrers => headers.insert(header::ACCEPT, INDEX),
        Class::Blob | Class::List | Class::Other => headers.remove(header::ACCEPT),
    };
    accepts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &header::HeaderName, values: &[&'static str]) -> HeaderMap {
        values
            .iter()
            .map(|value| (name.clone(), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn p21_accept_filters_by_the_most_specific_range() {
        for (accept, held, allowed) in [
            (&[][..], "application/vnd.oci.image.index.v1+json", true),
            (&["*/*"], "application/vnd.oci.image.index.v1+json", true),
            (
                &["application/*"],
                "application/vnd.oci.image.index.v1+json",
                true,
            ),
            (&["text/*"], "application/vnd.oci.image.index.v1+json", false),
            (
                &["application/vnd.oci.image.manifest.v1+json"],
                "application/vnd.oci.image.index.v1+json",
                false,
            ),
            (
                &[
                    "application/json",
                    "Application/vnd.oci.image.index.v1+JSON; q=0.5",
                ],
                "application/vnd.oci.image.index.v1+json; charset=utf-8",
                true,
            ),
            (
                &["*/*, application/vnd.oci.image.index.v1+json;q=0"],
                "application/vnd.oci.image.index.v1+json",
                false,
            ),
        ] {
            let accepts = Accepts::of(&headers(&header::ACCEPT, accept));
            let response = headers(&header::CONTENT_TYPE, &[held]);
            assert_eq!(accepts.allow(&response), allowed, "{accept:?} {held}");
        }
    }
}
