//! The paths of the OCI distribution specification: what a client asks a registry for. Pure.
//!
//! Reading: [distribution-spec](https://github.com/opencontainers/distribution-spec/blob/main/spec.md), "Endpoints".

use kato_shared::Digest;

/// The longest tag (spec: `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`).
const LONGEST_TAG: usize = 128;
/// The longest repository name: "many clients impose a limit of 255 characters on the length of the concatenation of the registry
/// hostname …, /, and the `<name>` value".
const LONGEST_NAME: usize = 255;

/// What a path asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint<'p> {
    /// `/v2/`: whether this is a registry.
    Base,
    /// `/v2/<name>/manifests/<reference>`.
    Manifest {
        /// The repository.
        repository: &'p str,
        /// A tag or a digest.
        reference: Reference<'p>,
    },
    /// `/v2/<name>/blobs/<digest>`.
    Blob {
        /// The repository.
        repository: &'p str,
        /// The digest, of whatever algorithm.
        digest: &'p str,
    },
    /// `/v2/<name>/tags/list`.
    Tags {
        /// The repository.
        repository: &'p str,
    },
    /// `/v2/<name>/referrers/<digest>`.
    Referrers {
        /// The repository.
        repository: &'p str,
        /// Who is referred to.
        digest: &'p str,
    },
    /// `/v2/_catalog`.
    Catalog,
    /// `/v2/<name>/blobs/uploads/…`: a push.
    Upload {
        /// The repository.
        repository: &'p str,
    },
}

/// What names a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reference<'p> {
    /// A name that may move.
    Tag(&'p str),
    /// A SHA-256 digest: what it names never changes, and can be verified.
    Digest(Digest),
    /// A digest of another algorithm, which is left to the client to verify.
    OtherDigest(&'p str),
}

impl Reference<'_> {
    /// Whether it may move.
    pub const fn is_tag(&self) -> bool {
        matches!(self, Self::Tag(_))
    }
}

/// Why a path asks for nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// No endpoint has such a path.
    #[error("this is no path of the distribution specification")]
    NoEndpoint,
    /// The repository's name breaks the grammar.
    #[error(
        "the repository name is not valid: expected lower-case words of letters and digits, separated by `.`, `_`, `-` or `/`"
    )]
    Name,
    /// Neither tag nor digest.
    #[error("the reference is not valid: expected a tag or algorithm:hex")]
    Reference,
    /// No digest.
    #[error("the digest is not valid: expected algorithm:hex")]
    Digest,
}

/// What `path` (`v2/…`, without leading slash and query) asks for.
///
/// # Errors
/// [`PathError`]; an escape (`%2F`) is never valid in such a path, so that no two readers can understand it differently.
pub fn endpoint(path: &str) -> Result<Endpoint<'_>, PathError> {
    let rest = match path.strip_prefix("v2") {
        Some("" | "/") => return Ok(Endpoint::Base),
        Some(rest) => rest.strip_prefix('/').ok_or(PathError::NoEndpoint)?,
        None => return Err(PathError::NoEndpoint),
    };
    if rest == "_catalog" {
        return Ok(Endpoint::Catalog);
    }
    if let Some(repository) = rest.strip_suffix("/tags/list") {
        return name(repository).map(|repository| Endpoint::Tags { repository });
    }
    if let Some((repository, upload)) = rest.split_once("/blobs/uploads")
        && (upload.is_empty() || upload.starts_with('/'))
    {
        return name(repository).map(|repository| Endpoint::Upload { repository });
    }
    let (folders, last) = rest.rsplit_once('/').ok_or(PathError::NoEndpoint)?;
    let (repository, kind) = folders.rsplit_once('/').ok_or(PathError::NoEndpoint)?;
    match kind {
        "manifests" => Ok(Endpoint::Manifest {
            repository: name(repository)?,
            reference: reference(last)?,
        }),
        "blobs" => Ok(Endpoint::Blob {
            repository: name(repository)?,
            digest: digest(last)?,
        }),
        "referrers" => Ok(Endpoint::Referrers {
            repository: name(repository)?,
            digest: digest(last)?,
        }),
        _ => Err(PathError::NoEndpoint),
    }
}

impl<'p> Endpoint<'p> {
    /// The repository, where it is about one.
    pub const fn repository(&self) -> Option<&'p str> {
        match self {
            Self::Manifest { repository, .. }
            | Self::Blob { repository, .. }
            | Self::Tags { repository }
            | Self::Referrers { repository, .. }
            | Self::Upload { repository } => Some(repository),
            Self::Base | Self::Catalog => None,
        }
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*`
fn name(text: &str) -> Result<&str, PathError> {
    let is_word = |word: &str| {
        word.bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    let is_component = |component: &str| {
        let mut rest = component;
        loop {
            let end = rest.find(['.', '_', '-']).unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            if word.is_empty() || !is_word(word) {
                return false;
            }
            if after.is_empty() {
                return true;
            }
            let dashes = after.len() - after.trim_start_matches('-').len();
            let separator = match dashes {
                0 if after.starts_with("__") => 2,
                0 => 1,
                more => more,
            };
            rest = &after[separator..];
        }
    };
    if text.len() <= LONGEST_NAME && text.split('/').all(is_component) {
        Ok(text)
    } else {
        Err(PathError::Name)
    }
}

fn reference(text: &str) -> Result<Reference<'_>, PathError> {
    if text.contains(':') {
        let text = digest(text).map_err(|_no_digest| PathError::Reference)?;
        return Ok(match text.parse() {
            Ok(digest) if text.starts_with("sha256:") => Reference::Digest(digest),
            _ => Reference::OtherDigest(text),
        });
    }
    let may_begin = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let may_follow = |byte: u8| may_begin(byte) || b".-".contains(&byte);
    let is_tag = text.len() <= LONGEST_TAG
        && text.bytes().next().is_some_and(may_begin)
        && text.bytes().all(may_follow);
    if is_tag {
        Ok(Reference::Tag(text))
    } else {
        Err(PathError::Reference)
    }
}

/// `algorithm ":" encoded`; of SHA-256 the encoded part is known exactly.
fn digest(text: &str) -> Result<&str, PathError> {
    let (algorithm, encoded) = text.split_once(':').ok_or(PathError::Digest)?;
    let is_algorithm = !algorithm.is_empty()
        && algorithm
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+._-".contains(&byte));
    let is_encoded = !encoded.is_empty()
        && encoded
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"=_-".contains(&byte));
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let is_right_length = algorithm != "sha256" || (encoded.len() == 64 && encoded.bytes().all(is_hex));
    if is_algorithm && is_encoded && is_right_length {
        Ok(text)
    } else {
        Err(PathError::Digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_endpoint_of_the_specification_is_known() {
        let digest = Digest::of(b"x");
        let hex = format!("sha256:{}", digest.hex());
        let repository = "a/b.c__d--e/f_g";
        for (path, expected) in [
            ("v2".to_owned(), Endpoint::Base),
            ("v2/".to_owned(), Endpoint::Base),
            ("v2/_catalog".to_owned(), Endpoint::Catalog),
            (
                format!("v2/{repository}/tags/list"),
                Endpoint::Tags { repository },
            ),
            (
                format!("v2/{repository}/manifests/v1.0-rc_1"),
                Endpoint::Manifest {
                    repository,
                    reference: Reference::Tag("v1.0-rc_1"),
                },
            ),
            (
                format!("v2/{repository}/manifests/{hex}"),
                Endpoint::Manifest {
                    repository,
                    reference: Reference::Digest(digest),
                },
            ),
            (
                format!("v2/{repository}/manifests/sha512:ab"),
                Endpoint::Manifest {
                    repository,
                    reference: Reference::OtherDigest("sha512:ab"),
                },
            ),
            (
                format!("v2/{repository}/blobs/{hex}"),
                Endpoint::Blob {
                    repository,
                    digest: &hex,
                },
            ),
            (
                format!("v2/{repository}/referrers/{hex}"),
                Endpoint::Referrers {
                    repository,
                    digest: &hex,
                },
            ),
            (
                format!("v2/{repository}/blobs/uploads/"),
                Endpoint::Upload { repository },
            ),
            (
                format!("v2/{repository}/blobs/uploads/7f-1"),
                Endpoint::Upload { repository },
            ),
        ] {
            assert_eq!(endpoint(&path), Ok(expected), "{path}");
        }
    }

    #[test]
    fn what_breaks_the_grammar_is_refused_by_what_is_wrong() {
        for (path, expected) in [
            ("v2/A/manifests/v1", PathError::Name),
            ("v2/a..b/manifests/v1", PathError::Name),
            ("v2/a___b/manifests/v1", PathError::Name),
            ("v2/-a/manifests/v1", PathError::Name),
            ("v2/a//b/manifests/v1", PathError::Name),
            ("v2/../a/manifests/v1", PathError::Name),
            ("v2/a%2fb/manifests/v1", PathError::Name),
            ("v2/a/manifests/.v1", PathError::Reference),
            ("v2/a/manifests/", PathError::Reference),
            ("v2/a/manifests/sha256:ab", PathError::Reference),
            ("v2/a/manifests/%76", PathError::Reference),
            ("v2/a/blobs/v1", PathError::Digest),
            ("v2/a/blobs/sha256:ABCD", PathError::Digest),
            ("v2/a/others/v1", PathError::NoEndpoint),
            ("v2/a", PathError::NoEndpoint),
            ("v2x/a/tags/list", PathError::NoEndpoint),
            ("v1/a/tags/list", PathError::NoEndpoint),
        ] {
            assert_eq!(endpoint(path), Err(expected), "{path}");
        }
        let long = format!("v2/a/manifests/{}", "t".repeat(129));
        assert_eq!(endpoint(&long), Err(PathError::Reference));
    }
}
