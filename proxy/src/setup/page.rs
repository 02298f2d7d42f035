//! What there is to be set up, for programs: `doctor` on a client's machine learns from it what to try.

use std::fmt::Write as _;

use kato_shared::settings::HumanDuration;
use serde::{Deserialize, Serialize};

use super::{Client, Site, languages::simple_index};
use crate::{
    offline::Served,
    settings::{BesideUsers, Kind, Upstream},
};

/// `GET /-/setup/` for somebody who accepts JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetupPage {
    /// The version of this document; 1.
    pub schema: u32,
    /// The clients that `/-/setup/CLIENT` has a text for.
    pub clients: Vec<String>,
    /// Where our certificate is, if clients of the proxy need it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// Whether no origin is asked, and what is served instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offline: Option<OfflineView>,
    /// What is given to those who are no users of the registries, though there are users.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub beside_users: Vec<BesideUsers>,
    /// What is served.
    pub upstreams: Vec<UpstreamView>,
}

/// A server that asks no origin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfflineView {
    /// The name of the snapshot that is served; none where it is all that the store holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
}

/// An upstream as a client sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamView {
    /// Its name.
    pub name: String,
    /// What it serves.
    pub kind: Kind,
    /// Its mirror path, from which clients' URLs begin.
    pub path: String,
    /// Something that upstreams of its kind have, and that only they can answer; where a snapshot is served, something that is in it, or
    /// nothing where all of it depends on what clients accept.
    pub probe: String,
    /// Whether every upstream of its kind has it: "not found" then says that it is none, or that its URL is wrong.
    #[serde(default)]
    pub must_be_there: bool,
    /// Whether the probe is a folder: that it may not be listed says nothing about what is in it.
    #[serde(default)]
    pub is_folder: bool,
    /// How many responses below its first base URL the snapshot has, where one is served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<u64>,
    /// Whether the store has something of it, which is served while it is away; none where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holds: Option<bool>,
    /// Of a registry: how long a tag is believed, a tenth more or less.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag_ttl: Option<HumanDuration>,
}

impl SetupPage {
    /// The page for `site`.
    pub fn of(site: Site<'_>) -> Self {
        let clients = Client::ALL
            .into_iter()
            .filter(|client| client.text(site).is_some());
        Self {
            schema: 1,
            clients: clients.map(|client| client.name().to_owned()).collect(),
            certificate: site.is_opened().then(|| "/-/ca.crt".to_owned()),
            offline: None,
            beside_users: beside_users(site),
            upstreams: site.upstreams(None).map(view).collect(),
        }
    }

    /// The page of a server that asks no origin: it serves `served`, or all that its store holds.
    #[must_use]
    pub(crate) fn offline(mut self, site: Site<'_>, served: Option<&Served>) -> Self {
        self.offline = Some(OfflineView {
            snapshot: served.map(Served::name),
        });
        for (view, upstream) in self.upstreams.iter_mut().zip(site.upstreams(None)) {
            let Some((base, served)) = upstream.urls.first().zip(served) else {
                continue;
            };
            let (count, rest) = served.below(base.url());
            view.held = Some(count);
            view.probe = rest.map_or_else(String::new, |rest| format!("{}{rest}", view.path));
        }
        self
    }

    /// The page for people.
    pub fn text(&self) -> String {
        let mut text = String::from("What a client has to be told to use this server:\n\n");
        for client in &self.clients {
            let _infallible = writeln!(text, "  /-/setup/{client}");
        }
        if let Some(path) = &self.certificate {
            let _infallible = writeln!(text, "  {path}");
        }
        text
    }
}

/// As the settings have it, of what the client may know about.
fn beside_users(site: Site<'_>) -> Vec<BesideUsers> {
    let is_for_client = |name: &str| {
        site.upstreams(None)
            .any(|upstream| upstream.name.as_str() == name)
    };
    let mut all = site.settings.beside_users();
    all.retain(|beside| {
        let registry = beside.around.as_ref().map(|(_, registry)| registry.as_str());
        is_for_client(&beside.upstream) && registry.is_none_or(is_for_client)
    });
    all
}

fn view(upstream: &Upstream) -> UpstreamView {
    let path = format!("/{}/", upstream.name);
    let (probe, must_be_there) = match upstream.kind {
        // The list of all projects has many megabytes; a project that is not there is an answer, too.
        Kind::Pypi => (format!("{path}{}pip/", simple_index(upstream)), false),
        Kind::Cargo => (format!("{path}config.json"), true),
        Kind::Npm => (format!("{path}-/ping"), false),
        // The registry's own: the door's is answered by us. With a token, where it wants one (distribution specification, "end-1").
        Kind::Registry => (format!("{path}v2/"), true),
        // What every archive has stands below the name of a suite, which sources of clients say and our settings do not.
        Kind::Packages => (format!("{path}dists/"), false),
        Kind::Release => (format!("{path}metadata/timestamp.json"), true),
        Kind::Generic => (path.clone(), false),
    };
    UpstreamView {
        name: upstream.name.to_string(),
        kind: upstream.kind,
        path,
        probe,
        must_be_there,
        is_folder: matches!(upstream.kind, Kind::Packages | Kind::Generic),
        held: None,
        holds: None,
        tag_ttl: (upstream.kind == Kind::Registry).then_some(upstream.registry.tag_ttl),
    }
}
