//! Until when a name in a registry, a tag or a list, is believed: what decides whether a client sees that it has moved. Pure.

use jiff::Timestamp;

use crate::{
    policy::{age::current_age, freshness::bounded_lifetime},
    settings::{Kind, Settings, Upstream},
    store::StoredResponse,
};

/// When `response`, stored for `url`, was or is asked about again; `None` where it is about no name of a registry, or has to be asked about at once.
pub(super) fn believed_until(
    settings: &Settings,
    (url, response): (&str, &StoredResponse),
    now: Timestamp,
) -> Option<Timestamp> {
    let of_name = |upstream: &&Upstream| upstream.name.as_str() == response.upstream;
    let upstream = settings.upstreams.iter().find(of_name)?;
    let path = path_below(upstream, url)?;
    if upstream.kind != Kind::Registry || response.head.invalidated {
        return None;
    }
    upstream.registry.name_lifetime(path)?;
    let overrides = upstream.overrides(path);
    if overrides.immutable {
        return None;
    }
    let lifetime = bounded_lifetime(&response.head, &overrides).0.duration;
    now.checked_add(lifetime.saturating_sub(current_age(&response.head, now)))
        .ok()
}

/// `url` below one of the base URLs of `upstream`.
fn path_below<'u>(upstream: &Upstream, url: &'u str) -> Option<&'u str> {
    upstream.urls.iter().find_map(|base| {
        let base = base.url();
        let (scheme, rest) = url.split_once("://")?;
        let authority = &base[url::Position::BeforeHost..url::Position::AfterPort];
        let path = rest.strip_prefix(authority)?;
        (scheme == base.scheme())
            .then(|| path.strip_prefix(base.path()))
            .flatten()
    })
}
