//! Whether what a registry answers can be what was asked for. Pure.
//!
//! A name says nothing about its content: whatever answers in the registry's place, such as the login page of a network or an
//! appliance that ends TLS, would become the tag for everybody. So what comes under a name has to have the form that the
//! specification gives it. What is named by its digest is verified instead, and needs only a type under which it can be found.

use http::{HeaderMap, header};
use serde_json::{Map, Value};

use super::{
    Class,
    accept::{is_manifest, media_type},
    present::DOCKER_CONTENT_DIGEST,
};

/// "Registries SHOULD … a manifest size limit of 4 megabytes" (distribution specification, "Pushing Manifests").
pub(crate) const LARGEST_MANIFEST: u64 = 4 << 20;
/// A list has no limit in the specification; this one has hundreds of thousands of names.
const LARGEST_LIST: u64 = 16 << 20;

/// The type that some registries give to everything that is JSON.
const JSON: &str = "application/json";

/// What a registry answered in the place of what was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// It is of another type.
    #[error("content of the type `{found}`, expected a manifest")]
    Type {
        /// `Content-Type`, without parameters.
        found: String,
    },
    /// It is something else than it says.
    #[error("content that is no JSON object of that kind")]
    Content,
    /// It has a status code that says nothing about what was asked for.
    #[error("the status code {status}, expected 200")]
    Status {
        /// The status code.
        status: u16,
    },
    /// It is a page, or has not the form of such a document.
    #[error("a page, or content of another kind, expected the document of that name")]
    Page,
    /// It lists nothing that a suite has.
    #[error("content that is no Release file, or that lists no file where the held one does")]
    Release,
    /// Its digest is none.
    #[error("the announced digest `{found}`, expected ALGORITHM:HEX")]
    Digest {
        /// `Docker-Content-Digest`.
        found: String,
    },
    /// It is larger than any such thing.
    #[error("more content than the {most} bytes that are the limit")]
    Large {
        /// The limit.
        most: u64,
    },
}

/// The most bytes that a `class` may have whose content has to be looked at before anybody gets it; `None` for all others.
pub(crate) const fn looked_at(class: Class) -> Option<u64> {
    match class {
        Class::Tag => Some(LARGEST_MANIFEST),
        Class::List | Class::Referrers => Some(LARGEST_LIST),
        Class::Manifest | Class::Blob | Class::Other => None,
    }
}

/// Whether `headers` of a 200 may be those of a `class`.
///
/// # Errors
/// What is wrong with them.
pub(crate) fn fits_by_head(class: Class, headers: &HeaderMap) -> Result<(), Misfit> {
    if let Some(found) = media_type(headers)
        && class.is_manifest()
        && !is_manifest(headers)
        && found != JSON
    {
        return Err(Misfit::Type { found });
    }
    if class.is_manifest()
        && let Some(found) = headers.get(DOCKER_CONTENT_DIGEST)
        && !found.to_str().is_ok_and(is_digest)
    {
        let found = String::from_utf8_lossy(found.as_bytes()).into_owned();
        return Err(Misfit::Digest { found });
    }
    let announced = headers.get(header::CONTENT_LENGTH);
    let announced: Option<u64> = announced.and_then(|length| length.to_str().ok()?.parse().ok());
    match looked_at(class) {
        Some(most) if announced.is_some_and(|announced| announced > most) => Err(Misfit::Large { most }),
        _ => Ok(()),
    }
}

/// Whether `text` has the form of a digest (image specification, "Digests"), of whatever algorithm.
fn is_digest(text: &str) -> bool {
    let Some((algorithm, encoded)) = text.split_once(':') else {
        return false;
    };
    let most = match algorithm {
        "sha256" => 64,
        "sha512" => 128,
        _ => encoded.len(),
    };
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || b"=_-".contains(&byte);
    !algorithm.is_empty() && !encoded.is_empty() && encoded.len() == most && encoded.bytes().all(is_word)
}

/// Whether `content` under `headers` can be that of a `class`.
///
/// # Errors
/// [`Misfit::Content`].
pub(crate) fn fits(class: Class, headers: &HeaderMap, content: &[u8]) -> Result<(), Misfit> {
    // A coding that nobody asked for: lists are not taken apart here, and a manifest in it would have another digest.
    if class != Class::Tag && headers.contains_key(header::CONTENT_ENCODING) {
        return Ok(());
    }
    let object: Map<String, Value> =
        serde_json::from_slice(content).map_err(|_unreadable| Misfit::Content)?;
    // Where the type does not say that it is a manifest, the content has to.
    let has_to_say = class == Class::Tag && !is_manifest(headers);
    if has_to_say && !object.contains_key("schemaVersion") {
        return Err(Misfit::Content);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn of_type(text: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(text))])
    }

    #[test]
    fn a_manifest_is_one_by_its_type_or_by_what_it_says() {
        let oci = "application/vnd.oci.image.index.v1+json";
        for (class, kind, content, fits_so) in [
            (Class::Tag, oci, &br#"{"manifests":[]}"#[..], true),
            (
                Class::Tag,
                "application/json; charset=utf-8",
                br#"{"schemaVersion":1}"#,
                true,
            ),
            (Class::Tag, "application/json", br#"{"login":"/"}"#, false),
            (Class::Tag, "text/html", br#"{"schemaVersion":2}"#, false),
            (Class::Tag, oci, b"garbage", false),
            (Class::Tag, oci, b"[]", false),
            (Class::Tag, oci, b"", false),
            (Class::List, "text/plain", br#"{"tags":["v1"]}"#, true),
            (Class::List, "application/json", b"<html>", false),
            (Class::Referrers, oci, b"{}", true),
        ] {
            let headers = of_type(kind);
            let judged = fits_by_head(class, &headers).and_then(|()| fits(class, &headers, content));
            assert_eq!(judged.is_ok(), fits_so, "{class:?} {kind} {judged:?}");
        }
        assert_eq!(
            fits_by_head(Class::Manifest, &of_type("text/html")),
            Err(Misfit::Type {
                found: "text/html".into()
            })
        );
        assert_eq!(fits_by_head(Class::Blob, &of_type("text/html")), Ok(()));
    }

    #[test]
    fn what_is_announced_as_a_digest_has_to_be_one() {
        let oci = "application/vnd.oci.image.manifest.v1+json";
        let right = format!("sha256:{}", "a".repeat(64));
        for (text, is_right) in [
            (right.as_str(), true),
            (&format!("sha512:{}", "a".repeat(128)), true),
            ("garbage", false),
            ("sha256:", false),
            ("sha256:abc", false),
            ("", false),
        ] {
            let mut headers = of_type(oci);
            headers.insert(DOCKER_CONTENT_DIGEST, HeaderValue::from_str(text).unwrap());
            assert_eq!(fits_by_head(Class::Tag, &headers).is_ok(), is_right, "{text}");
        }
    }

    #[test]
    fn what_is_too_large_need_not_come() {
        let mut headers = of_type("application/vnd.oci.image.manifest.v1+json");
        headers.insert(header::CONTENT_LENGTH, (LARGEST_MANIFEST + 1).into());
        let most = LARGEST_MANIFEST;
        assert_eq!(fits_by_head(Class::Tag, &headers), Err(Misfit::Large { most }));
        assert_eq!(fits_by_head(Class::List, &headers), Ok(()));
    }
}
