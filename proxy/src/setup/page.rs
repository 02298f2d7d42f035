//! What there is to be set up, for programs: `doctor` on a client's machine learns from it what to try.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::{Client, Site, languages::simple_index};
use crate::settings::{Kind, Upstream};

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
    /// What is served.
    pub upstreams: Vec<UpstreamView>,
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
    /// Something that every upstream of its kind has; where there is nothing such, the mirror path.
    pub probe: String,
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
            upstreams: site.upstreams(None).map(view).collect(),
        }
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

fn view(upstream: &Upstream) -> UpstreamView {
    let path = format!("/{}/", upstream.name);
    let probe = match upstream.kind {
        // The list of all projects has many megabytes; a project that is not there is an answer, too.
        Kind::Pypi => format!("{path}{}pip/", simple_index(upstream)),
        Kind::Cargo => format!("{path}config.json"),
        Kind::Npm => format!("{path}-/ping"),
        Kind::Registry => "/v2/".to_owned(),
        Kind::Packages | Kind::Release | Kind::Generic => path.clone(),
    };
    UpstreamView {
        name: upstream.name.to_string(),
        kind: upstream.kind,
        path,
        probe,
    }
}
