//! The door `/v2/`: which registry is meant, and which target there.

use std::{fmt::Write as _, sync::Arc};

use http::{Method, Uri};
use kato_shared::Digest;
use percent_encoding::percent_decode_str;

use super::{RouteError, Target, below};
use crate::{
    ecosystem::oci::{self, Endpoint},
    registry::{Door, Refused},
    settings::{Upstream, UpstreamName},
};

/// Where a request at the door goes.
pub(super) enum Found {
    /// To `/v2/` itself, which we answer.
    Base,
    /// To a target of a registry.
    Target(Box<Target>),
}

/// The target of a request at the door.
pub(super) fn target(
    upstreams: &[Arc<Upstream>],
    default: Option<&UpstreamName>,
    (method, uri): (&Method, &Uri),
) -> Result<Found, RouteError> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return Err(Refused::ReadOnly.into());
    }
    let rest = uri
        .path()
        .strip_prefix("/v2")
        .unwrap_or_default()
        .trim_start_matches('/');
    if rest.is_empty() {
        return Ok(Found::Base);
    }
    let (namespace, query) = split_query(uri.query())?;
    let (upstream, rest) = registry(upstreams, default, namespace, rest)?;
    if rest.is_empty() {
        return Ok(Found::Base);
    }
    let path = format!("v2/{rest}");
    let refuse = |source| Refused::Path {
        path: uri.path().to_owned(),
        source,
    };
    let endpoint = oci::endpoint(&path).map_err(refuse)?;
    if matches!(endpoint, Endpoint::Upload { .. }) {
        return Err(Refused::ReadOnly.into());
    }
    let mut suffix = match (endpoint.repository(), &upstream.registry.library) {
        (Some(repository), Some(library)) if !repository.contains('/') => format!("v2/{library}/{rest}"),
        _ => path,
    };
    if !query.is_empty() {
        // Writing to a `String` cannot fail.
        let _infallible = write!(suffix, "?{query}");
    }
    let mut target = below(upstream, &suffix)?;
    if let Some(place) = &mut target.registry {
        place.door = Some(Door {
            path: uri.path().to_owned(),
            namespace: namespace.map(str::to_owned),
        });
    }
    Ok(Found::Target(Box::new(target)))
}

/// The manifest `digest` of the repository that `target` is about.
pub(crate) fn registry_manifest(target: &Target, digest: &Digest) -> Option<Target> {
    let path = target.registry.as_ref()?.manifest_path(digest);
    registry_sibling(target, &path)
}

/// What stands at `path`, below the base URL, at the registry that `target` is about.
pub(crate) fn registry_sibling(target: &Target, path: &str) -> Option<Target> {
    below(&target.upstream, path).ok()
}

/// The registry that is meant, and the path behind its name.
///
/// What has a dot or a colon is the host of a registry and nothing else, as in the references that people write
/// (`hub.example/app`); a first word without them is a registry where one is called so, else the repository's.
fn registry<'u, 'p>(
    upstreams: &'u [Arc<Upstream>],
    default: Option<&UpstreamName>,
    namespace: Option<&str>,
    rest: &'p str,
) -> Result<(&'u Arc<Upstream>, &'p str), RouteError> {
    let called = |name: &str| {
        upstreams
            .iter()
            .find(|upstream| upstream.is_registry_called(name))
    };
    let unknown = |name: &str| Refused::Unknown {
        name: name.to_owned(),
    };
    if let Some(namespace) = namespace {
        let name = percent_decode_str(namespace).decode_utf8_lossy();
        return Ok((called(&name).ok_or_else(|| unknown(&name))?, rest));
    }
    let (first, behind) = rest.split_once('/').unwrap_or((rest, ""));
    if let Some(upstream) = called(first) {
        return Ok((upstream, behind));
    }
    if first.contains(['.', ':']) || first == "localhost" {
        return Err(unknown(first).into());
    }
    let default = default.and_then(|name| upstreams.iter().find(|upstream| upstream.name == *name));
    Ok((default.ok_or(Refused::NoDefault)?, rest))
}

/// The value of `ns`, and the query without it; the name may be escaped, as the next server would read it.
///
/// # Errors
/// [`RouteError::TwoRegistries`], though both be the same.
fn split_query(query: Option<&str>) -> Result<(Option<&str>, String), RouteError> {
    let parts = query.unwrap_or_default().split('&');
    let pairs = parts.map(|part| (part, part.split_once('=').unwrap_or((part, ""))));
    let (named, others): (Vec<_>, Vec<_>) = pairs
        .filter(|(part, _)| !part.is_empty())
        .partition(|(_, (name, _))| percent_decode_str(name).eq(*b"ns"));
    if named.len() > 1 {
        return Err(RouteError::TwoRegistries);
    }
    let others: Vec<_> = others.into_iter().map(|(part, _)| part).collect();
    Ok((named.first().map(|(_, (_, value))| *value), others.join("&")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Kind, RegistryHost};

    fn upstreams() -> Vec<Arc<Upstream>> {
        let registry = |flag: &str, alias: &str, library: Option<&str>| {
            let mut upstream: Upstream = flag.parse().unwrap();
            upstream.kind = Kind::Registry;
            upstream.registry.aliases = vec![RegistryHost::try_from(alias.to_owned()).unwrap()];
            upstream.registry.library = library.map(str::to_owned);
            Arc::new(upstream)
        };
        let plain: Upstream = "pkg=https://pkg.example/".parse().unwrap();
        vec![
            Arc::new(plain),
            registry(
                "hub=https://registry-1.hub.example/",
                "hub.example",
                Some("library"),
            ),
            registry("lab=http://lab.example:5000/", "lab", None),
        ]
    }

    fn asked(method: &Method, uri: &str, default: Option<&str>) -> Result<String, RouteError> {
        let default = default.map(|name| UpstreamName::try_from(name.to_owned()).unwrap());
        let uri: Uri = uri.parse().unwrap();
        Ok(match target(&upstreams(), default.as_ref(), (method, &uri))? {
            Found::Base => "base".into(),
            Found::Target(target) => target.key.uri().to_owned(),
        })
    }

    #[test]
    fn p12_all_three_doors_lead_to_one_key() {
        for uri in [
            "/v2/app/manifests/v1?ns=hub.example",
            "/v2/library/app/manifests/v1?ns=hub.example",
            "/v2/hub.example/app/manifests/v1",
            "/v2/hub/library/app/manifests/v1",
            "/v2/registry-1.hub.example/app/manifests/v1",
            "/v2/app/manifests/v1",
        ] {
            assert_eq!(
                asked(&Method::GET, uri, Some("hub")).unwrap(),
                "https://registry-1.hub.example/v2/library/app/manifests/v1",
                "{uri}"
            );
        }
        assert_eq!(
            asked(
                &Method::GET,
                "/v2/a/tags/list?n=2&ns=lab.example%3A5000&last=b",
                None
            )
            .unwrap(),
            "http://lab.example:5000/v2/a/tags/list?n=2&last=b"
        );
        for base in ["/v2", "/v2/", "/v2/lab/"] {
            assert_eq!(asked(&Method::HEAD, base, None).unwrap(), "base");
        }
    }

    #[test]
    fn p12_p19_a_name_that_no_registry_has_is_never_an_address_to_dial() {
        for uri in [
            "/v2/app/manifests/v1?ns=evil.example",
            "/v2/app/manifests/v1?ns=pkg.example",
            "/v2/evil.example/app/manifests/v1",
            "/v2/127.0.0.1:22/app/manifests/v1",
            "/v2/localhost/app/manifests/v1",
        ] {
            let refused = asked(&Method::GET, uri, Some("hub")).unwrap_err();
            assert!(
                matches!(refused, RouteError::Registry(Refused::Unknown { .. })),
                "{uri}: {refused}"
            );
        }
        assert_eq!(
            asked(&Method::GET, "/v2/app/manifests/v1", None),
            Err(Refused::NoDefault.into())
        );
    }

    #[test]
    fn what_would_push_and_what_breaks_the_grammar_is_refused() {
        let uri = "/v2/hub/app/manifests/v1";
        for method in [Method::PUT, Method::POST, Method::PATCH, Method::DELETE] {
            assert_eq!(asked(&method, uri, None), Err(Refused::ReadOnly.into()));
        }
        for uri in [
            "/v2/hub/a/../b/manifests/v1",
            "/v2/hub/a%2fb/manifests/v1",
            "/v2/hub/a/x/y",
        ] {
            let refused = asked(&Method::GET, uri, None).unwrap_err();
            assert!(
                matches!(refused, RouteError::Registry(Refused::Path { .. })),
                "{uri}: {refused}"
            );
        }
        for query in [
            "ns=hub.example&ns=lab",
            "ns=hub.example&ns=hub.example",
            "ns=hub.example&n=2&n%73=lab",
            "%6e%73=hub.example&ns=lab",
            "ns=hub.example&ns",
            "ns=&ns=hub.example",
        ] {
            let refused = asked(&Method::GET, &format!("/v2/app/manifests/v1?{query}"), None);
            assert_eq!(refused, Err(RouteError::TwoRegistries), "{query}");
        }
        let escaped = asked(&Method::GET, "/v2/app/tags/list?n%73=hub.example&nsx=1", None);
        assert_eq!(
            escaped.as_deref(),
            Ok("https://registry-1.hub.example/v2/library/app/tags/list?nsx=1")
        );
        let upload = asked(&Method::GET, "/v2/hub/app/blobs/uploads/1", None);
        assert_eq!(upload, Err(Refused::ReadOnly.into()));
    }
}
