//! Absolute-form targets: the upstream whose base URL is the longest prefix, else one with the same host.

use std::{cmp::Ordering, sync::Arc};

use http::{Uri, uri::Authority};
use url::Url;

use super::{RouteError, Target, bases, below, below_bases, finish, spelling, without_credentials};
use crate::settings::Upstream;

/// The target of `scheme://authority` and the path and query of `uri`.
///
/// A request for `http` finds an upstream that is configured with `https`, at the default ports: so a client that cannot
/// speak TLS through a proxy reaches a TLS origin, and shares the stored response with those that can.
pub(super) fn target(
    upstreams: &[Arc<Upstream>],
    scheme: &str,
    authority: &Authority,
    uri: &Uri,
) -> Result<Target, RouteError> {
    let path_and_query = uri.path_and_query().map_or("/", |given| given.as_str());
    let bad = || super::bad(uri);
    let url = Url::parse(&format!("{scheme}://{authority}{path_and_query}")).map_err(|_not_a_url| bad())?;
    if !matches!(url.scheme(), "http" | "https") || !url.username().is_empty() || url.password().is_some() {
        return Err(bad());
    }
    let owners = owners(upstreams, &url);
    if let Some((upstream, base)) = owners.last() {
        let suffix = spelling::below(url.path(), base.path()).unwrap_or_default();
        let mut suffix = suffix.to_owned();
        if let Some(query) = url.query() {
            suffix.push('?');
            suffix.push_str(query);
        }
        // Files stand at one URL each; only `urls` are alternatives to one another.
        let target = if upstream.file_urls.iter().any(|file| file.url() == *base) {
            below_bases(upstream, &[*base], &suffix)
        } else {
            below(upstream, &suffix)
        };
        let others = owners.iter().map(|(other, _)| Arc::clone(other));
        return Ok(Target {
            shared_with: others.filter(|other| other.name != upstream.name).collect(),
            ..target?
        });
    }
    // Beside every base path, but on a configured host: asked there and nowhere else, without the credentials that are for what is below.
    // All upstreams of the host have a say in it; as content of a closed one it is kept from those who may not use that.
    let of_host = bases(upstreams).filter(|(_, base)| is_same_host(base, &url));
    let (upstream, base) = of_host
        .min_by_key(|(upstream, _)| upstream.clients.is_none())
        .ok_or_else(|| RouteError::UnknownHost {
            host: authority.to_string(),
        })?;
    let mut candidate = without_credentials(base).into_owned();
    candidate.set_path(url.path());
    candidate.set_query(url.query());
    // With its slash: rules are about paths below the base URL, and this one is not.
    let path = candidate.path().to_owned();
    finish(upstream, vec![candidate], path)
}

/// The upstreams that have the longest base URL above `url`, the last of which decides.
pub(super) fn owners<'u>(upstreams: &'u [Arc<Upstream>], url: &Url) -> Vec<(&'u Arc<Upstream>, &'u Url)> {
    let of_host = bases(upstreams).filter(|(_, base)| is_same_host(base, url));
    let above = of_host.filter(|(_, base)| spelling::below(url.path(), base.path()).is_some());
    // They all stand above one path, each spelled as it likes: what has more segments is longer.
    let rank = |base: &Url| (base.path().matches('/').count(), base.scheme() == url.scheme());
    let mut owners: Vec<(&Arc<Upstream>, &Url)> = Vec::new();
    for (upstream, base) in above {
        match owners.last().map(|(_, best)| rank(base).cmp(&rank(best))) {
            Some(Ordering::Less) => {}
            Some(Ordering::Equal) => owners.push((upstream, base)),
            Some(Ordering::Greater) | None => owners = vec![(upstream, base)],
        }
    }
    owners
}

/// Whether `asked` is at the host and port of `base`; the default ports of both schemes count as one.
pub(super) fn is_same_host(base: &Url, asked: &Url) -> bool {
    let same_port = base.port_or_known_default() == asked.port_or_known_default();
    let both_default = base.port().is_none() && asked.port().is_none();
    base.host_str() == asked.host_str() && (base.scheme() == asked.scheme() && same_port || both_default)
}
