//! The origin: a real registry on the lab's own side, with its storage in the lab's folder, that logs every request.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result};
use integration_tests::{
    lab::{Background, HOST, Lab},
    wait,
};
use kato_shared::durable;
use serde::Deserialize;

/// The registry's port. The network is the lab's own, so every port is free.
pub(crate) const PORT: u16 = 5000;

/// The path of a request that only marks the log.
const MARK: &str = "/v2/?mark";

/// Long beside a start or an end on a busy machine.
const SOON: Duration = Duration::from_secs(20);

/// A running registry.
#[derive(Debug)]
pub(crate) struct Registry<'lab> {
    lab: &'lab Lab,
    process: Background,
}

/// One answered request of the registry's log.
#[derive(Debug, Deserialize)]
pub(crate) struct Request {
    #[serde(rename = "http.request.method")]
    pub(crate) method: String,
    #[serde(rename = "http.request.uri")]
    uri: String,
    #[serde(rename = "http.response.status")]
    pub(crate) status: u16,
}

impl Request {
    /// Whether it asked for the content of a blob: a layer or a configuration.
    pub(crate) fn is_blob(&self) -> bool {
        self.method == "GET" && self.uri.contains("/blobs/")
    }

    /// Whether it asked for a manifest, or about one.
    pub(crate) fn is_manifest(&self) -> bool {
        self.uri.contains("/manifests/")
    }
}

impl<'lab> Registry<'lab> {
    /// Starts an empty registry and waits until it listens.
    ///
    /// # Errors
    /// When it does not, or `docker-registry` of `tests/packages.txt` is missing; its log is in the message.
    pub(crate) fn start(lab: &'lab Lab) -> Result<Self> {
        let config = lab.folder().join("registry.yml");
        durable::write(
            &config,
            settings(&lab.folder().join("registry")).as_bytes(),
            0o644,
        )?;
        let config = config.to_str().context("the temporary folder is not UTF-8")?;
        let process = lab.spawn_on_host(&["docker-registry", "serve", config])?;
        let registry = Self { lab, process };
        wait::until("the registry listens", SOON, || registry.connect().ok())
            .with_context(|| registry.process.log())?;
        Ok(registry)
    }

    /// Every request so far, in the order in which they were answered.
    ///
    /// # Errors
    /// When the registry does not answer.
    pub(crate) fn requests(&self) -> Result<Vec<Request>> {
        // A client may have its answer a moment before the log has the line; a further request comes behind it in the log.
        let marks = self.logged().iter().filter(|request| request.uri == MARK).count();
        let mut connection = self.connect()?;
        write!(connection, "GET {MARK} HTTP/1.0\r\nHost: {HOST}\r\n\r\n")?;
        connection.read_to_end(&mut Vec::new())?;
        wait::until("the mark in the registry's log", SOON, || {
            let requests = self.logged();
            let all = requests.iter().filter(|request| request.uri == MARK).count();
            (all > marks).then_some(requests)
        })
    }

    /// Ends the registry and waits until nobody listens there.
    ///
    /// # Errors
    /// When it goes on.
    pub(crate) fn stop(self) -> Result<()> {
        let Self { lab, process } = self;
        drop(process);
        wait::until("the end of the registry", SOON, || connect(lab).err()).map(drop)
    }

    /// The whole lines of the log that are about answered requests; all others have no status.
    fn logged(&self) -> Vec<Request> {
        let log = self.process.log();
        log.lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }

    fn connect(&self) -> Result<TcpStream> {
        connect(self.lab)
    }
}

fn connect(lab: &Lab) -> Result<TcpStream> {
    lab.node("core")?.connect(SocketAddr::from((HOST, PORT)))
}

/// Nothing from `/etc`: a folder as storage, and the log in JSON on stderr.
fn settings(storage: &Path) -> String {
    let storage = storage.display();
    format!(
        "version: 0.1\n\
         log:\n  level: info\n  formatter: json\n  accesslog:\n    disabled: true\n\
         storage:\n  filesystem:\n    rootdirectory: {storage}\n\
         http:\n  addr: {HOST}:{PORT}\n  secret: lab\n"
    )
}
