//! Which of a registry's things a target is.

use kato_shared::Digest;

use crate::ecosystem::oci::{self, Endpoint};

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// What it is.
    pub class: Class,
    /// The repository as the upstream calls it; empty where it is about none.
    pub repository: String,
    /// How it was asked for, if by the door `/v2/`.
    pub door: Option<Door>,
    /// The path by which it was asked for, if that is a mirror path.
    pub mirror_path: Option<String>,
}

/// What can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// A manifest by a name that may move.
    Tag,
    /// A manifest by its digest.
    Manifest,
    /// A layer or a configuration.
    Blob,
    /// Tags, repositories: they come in pages.
    List,
    /// What refers to a digest; comes in pages, too.
    Referrers,
    /// Anything else of that upstream.
    Other,
}

impl Class {
    /// Whether it is a manifest.
    pub const fn is_manifest(self) -> bool {
        matches!(self, Self::Tag | Self::Manifest)
    }

    /// Whether further pages of it are linked.
    pub const fn is_paged(self) -> bool {
        matches!(self, Self::List | Self::Referrers)
    }
}

/// What the client has asked for, so that links can lead back to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Door {
    /// The path, without query.
    pub path: String,
    /// `ns` as it stood in the query, escapes and all.
    pub namespace: Option<String>,
}

impl Place {
    /// What stands at `path`, below the base URL of a registry.
    pub fn of(path: &str) -> Self {
        let path = path.split('?').next().unwrap_or_default();
        let endpoint = oci::endpoint(path).ok();
        let class = match endpoint {
            Some(Endpoint::Manifest { reference, .. }) if reference.is_tag() => Class::Tag,
            Some(Endpoint::Manifest { .. }) => Class::Manifest,
            Some(Endpoint::Blob { .. }) => Class::Blob,
            Some(Endpoint::Tags { .. } | Endpoint::Catalog) => Class::List,
            Some(Endpoint::Referrers { .. }) => Class::Referrers,
            Some(Endpoint::Base | Endpoint::Upload { .. }) | None => Class::Other,
        };
        let repository = endpoint.and_then(|endpoint| endpoint.repository());
        Self {
            class,
            repository: repository.unwrap_or_default().to_owned(),
            door: None,
            mirror_path: None,
        }
    }

    /// Where this server has it for the client that asked, path and `ns`: links lead back there. `None` for those who have the registry's own URL.
    pub fn asked_here(&self) -> Option<(&str, Option<&str>)> {
        let by_door = self.door.as_ref();
        let by_door = by_door.map(|door| (door.path.as_str(), door.namespace.as_deref()));
        by_door.or_else(|| Some((self.mirror_path.as_deref()?, None)))
    }

    /// Whether `path`, below the base URL of a registry, is that of the question whether there is a registry.
    pub fn is_base(path: &str) -> bool {
        let path = path.split('?').next().unwrap_or_default();
        matches!(oci::endpoint(path), Ok(Endpoint::Base))
    }

    /// The path below the base URL of the manifest `digest` in the same repository.
    pub fn manifest_path(&self, digest: &Digest) -> String {
        format!("v2/{}/manifests/{digest}", self.repository)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_class_follows_from_the_path_alone() {
        let digest = Digest::of(b"x");
        for (path, class, repository) in [
            ("v2/a/b/manifests/v1".to_owned(), Class::Tag, "a/b"),
            (format!("v2/a/b/manifests/{digest}"), Class::Manifest, "a/b"),
            (format!("v2/a/blobs/{digest}"), Class::Blob, "a"),
            ("v2/a/tags/list?n=1".to_owned(), Class::List, "a"),
            ("v2/_catalog".to_owned(), Class::List, ""),
            (format!("v2/a/referrers/{digest}"), Class::Referrers, "a"),
            ("v2/".to_owned(), Class::Other, ""),
            ("index.html".to_owned(), Class::Other, ""),
        ] {
            let place = Place::of(&path);
            assert_eq!(
                (place.class, place.repository.as_str()),
                (class, repository),
                "{path}"
            );
        }
        let sibling = Place::of("v2/a/b/manifests/v1").manifest_path(&digest);
        assert_eq!(Place::of(&sibling).class, Class::Manifest);
    }
}
