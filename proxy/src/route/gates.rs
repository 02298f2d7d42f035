//! Who else has a say in a request: upstreams on the same server, whose content it could reach beside the upstream that was asked of. Pure.
//!
//! An upstream has its own paths to itself. Where another has a longer base path that some server could find above the target (see
//! [`Reading`]), the target may be that one's; beside every base path it may be anybody's on that server, and so may whatever is in a tunnel.
//! All of them must let the client pass.

use std::sync::Arc;

use url::Url;

use super::{bases, forward::is_same_host, spelling};
use crate::{route::Reading, settings::Upstream};

/// Those beside `asked` that have a say in a request for `url`.
pub(super) fn of_target(upstreams: &[Arc<Upstream>], asked: &Upstream, url: &Url) -> Vec<Arc<Upstream>> {
    let reading = Reading::of(url.path());
    let own_depth = asked
        .all_urls()
        .filter(|base| is_same_host(base, url) && spelling::below(url.path(), base.path()).is_some())
        .filter_map(|base| Reading::of(base.path()))
        .map(|base| base.depth())
        .max();
    let has_a_say = |base: &Url| match (own_depth, &reading, Reading::of(base.path())) {
        (Some(own), Some(reading), Some(base)) => base.depth() > own && reading.is_below(&base),
        // What cannot be read could be anything.
        _ => true,
    };
    let others = bases(upstreams).filter(|(upstream, base)| {
        upstream.name != asked.name && is_same_server(base, url) && has_a_say(base)
    });
    each_once(others.map(|(upstream, _)| upstream))
}

/// Those that have a say in a tunnel to `host`, as URLs have it, at `port`.
pub(super) fn of_tunnel(upstreams: &[Arc<Upstream>], host: &str, port: u16) -> Vec<Arc<Upstream>> {
    let is_default = matches!(port, 80 | 443);
    let of_host =
        || bases(upstreams).filter(|(_, base)| base.host_str().is_some_and(|base| is_one(base, host)));
    let at_port = of_host().filter(|(_, base)| {
        base.port_or_known_default() == Some(port) || is_default && base.port().is_none()
    });
    let at_port = each_once(at_port.map(|(upstream, _)| upstream));
    if at_port.is_empty() {
        return each_once(of_host().map(|(upstream, _)| upstream));
    }
    at_port
}

/// Whether both URLs lead to one server, whatever the scheme; the default ports of both count as one.
pub(crate) fn is_same_server(base: &Url, url: &Url) -> bool {
    let same_host = base
        .host_str()
        .zip(url.host_str())
        .is_some_and(|(base, url)| is_one(base, url));
    let same_port = base.port_or_known_default() == url.port_or_known_default();
    same_host && (same_port || base.port().is_none() && url.port().is_none())
}

/// Whether two names are of one host: a dot at the end changes nothing (RFC 1034 §3.1).
fn is_one(a: &str, b: &str) -> bool {
    a.trim_end_matches('.')
        .eq_ignore_ascii_case(b.trim_end_matches('.'))
}

fn each_once<'u>(upstreams: impl Iterator<Item = &'u Arc<Upstream>>) -> Vec<Arc<Upstream>> {
    let mut once: Vec<Arc<Upstream>> = Vec::new();
    for upstream in upstreams {
        if once.iter().all(|known| known.name != upstream.name) {
            once.push(Arc::clone(upstream));
        }
    }
    once
}
