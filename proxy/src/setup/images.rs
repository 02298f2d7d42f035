//! Container images: each registry by its own name, led to us; none is led to us that no upstream names.

use std::fmt::Write as _;

use serde_json::json;

use super::{FILE, Site, hosts};
use crate::settings::{Kind, Upstream};

/// The file beside the folders of the registries with the authority of our own certificate.
const AUTHORITY_FILE: &str = "kato-proxy-ca.crt";

/// What clients call each registry, and its name here.
fn registries(site: Site<'_>) -> Vec<(String, &str)> {
    let mut all: Vec<(String, &str)> = Vec::new();
    for upstream in site.upstreams(Some(Kind::Registry)) {
        let aliases = upstream.registry.aliases.iter();
        // An alias of one word is no host that a reference could name.
        let aliases = aliases
            .map(|alias| alias.as_str().to_owned())
            .filter(|alias| alias.contains(['.', ':']));
        for called in aliases.chain(hosts(upstream)) {
            if all.iter().all(|(known, _)| *known != called) {
                all.push((called, upstream.name.as_str()));
            }
        }
    }
    all
}

/// When a tag that has moved is seen, as comments.
fn tags_note(site: Site<'_>) -> String {
    let each = site.upstreams(Some(Kind::Registry));
    let each: Vec<_> = each
        .map(|upstream| format!("{} {}", upstream.name, upstream.registry.tag_ttl))
        .collect();
    format!(
        "# A tag that has moved is seen after the tag_ttl of its registry: {}.\n",
        each.join(", ")
    )
}

/// What has to be there for [`hosts_files`], as comments; empty where that is nothing.
fn hosts_note(site: Site<'_>, folder: &str) -> String {
    let mut text = authority_note(site, &format!("{folder}/{AUTHORITY_FILE}"));
    if !text.is_empty() {
        text.push_str("# Where the machine trusts that authority already, leave the lines `ca` out.\n");
    }
    text
}

/// For each registry a `hosts.toml` below `folder`, which leads it here and nowhere else: `server` is what is asked when no host has
/// answered.
fn hosts_files(site: Site<'_>, folder: &str) -> String {
    let base = site.base.as_str();
    let authority = format!("{folder}/{AUTHORITY_FILE}");
    let ca = if site.base.is_tls() {
        format!("  ca = \"{authority}\"\n")
    } else {
        String::new()
    };
    let file = |(host, _): &(String, &str)| {
        format!(
            "{FILE}{folder}/{host}/hosts.toml\nserver = \"{base}\"\n\n[host.\"{base}\"]\n  capabilities = [\"pull\", \"resolve\"]\n{ca}\n"
        )
    };
    registries(site).iter().map(file).collect()
}

/// Where the authority of our own certificate belongs, as comments; empty where there is none to show.
fn authority_note(site: Site<'_>, file: &str) -> String {
    if !site.base.is_tls() {
        return String::new();
    }
    let server = site.base.authority();
    format!(
        "# The certificate of the authority that made the one of {server}, in PEM, belongs into\n#   {file}\n"
    )
}

/// See [`super::Client::text`].
pub(super) fn docker(site: Site<'_>) -> String {
    let (base, authority) = (site.base.as_str(), site.base.authority());
    let mut daemon = json!({});
    let is_default = |upstream: &Upstream| site.settings.registry.default.as_ref() == Some(&upstream.name);
    if site.upstreams(Some(Kind::Registry)).any(is_default) {
        daemon["registry-mirrors"] = json!([base]);
    }
    if !site.base.is_tls() {
        daemon["insecure-registries"] = json!([authority]);
    }
    // JSON has no comments: all words stand before the first file.
    let mut text =
        "# registry-mirrors holds for the default registry alone. Images of others, by their prefix:\n"
            .to_owned();
    for upstream in site.upstreams(Some(Kind::Registry)) {
        let _infallible = writeln!(
            text,
            "#   docker pull {authority}/{}/REPOSITORY:TAG",
            upstream.name
        );
    }
    text.push_str(&tags_note(site));
    text.push_str(&authority_note(
        site,
        &format!("/etc/docker/certs.d/{authority}/ca.crt"),
    ));
    text.push_str(
        "# Engine 29 and later with the containerd image store: the files hosts.toml in the place of daemon.json, effective at once.\n",
    );
    text.push_str(&hosts_note(site, "/etc/docker/certs.d"));
    let _infallible = write!(text, "\n{FILE}/etc/docker/daemon.json\n{daemon:#}\n\n");
    text.push_str(&hosts_files(site, "/etc/docker/certs.d"));
    text
}

/// See [`super::Client::text`].
pub(super) fn containerd(site: Site<'_>) -> String {
    let mut text = format!(
        "{FILE}/etc/containerd/config.toml\n\
         # 2.x; for 1.x: version = 2 and plugins.\"io.containerd.grpc.v1.cri\".registry\n\
         version = 3\n\
         [plugins.\"io.containerd.cri.v1.images\".registry]\n  config_path = \"/etc/containerd/certs.d\"\n\n"
    );
    text.push_str(&tags_note(site));
    text.push_str(&hosts_note(site, "/etc/containerd/certs.d"));
    text.push_str(&hosts_files(site, "/etc/containerd/certs.d"));
    text
}

/// See [`super::Client::text`].
pub(super) fn podman(site: Site<'_>) -> String {
    let mut text = format!(
        "{FILE}/etc/containers/registries.conf.d/50-kato-proxy.conf\n\
         # podman, skopeo and buildah read it, and CRI-O after it was restarted; what stands in registries.conf counts as well.\n"
    );
    text.push_str(&tags_note(site));
    text.push_str(&authority_note(
        site,
        &format!("/etc/containers/certs.d/{}/ca.crt", site.base.authority()),
    ));
    for (host, name) in registries(site) {
        let _infallible = write!(
            text,
            "[[registry]]\nprefix = \"{host}\"\nlocation = \"{}/{name}\"\n{}\n",
            site.base.authority(),
            if site.base.is_tls() {
                ""
            } else {
                "insecure = true\n"
            }
        );
    }
    text
}
