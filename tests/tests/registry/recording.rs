//! A listener that writes down what clients ask for, and hands everything on as it is.

use std::{
    fmt::{self, Write as _},
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context, Result};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// The fields on which an answer depends here; the rest of a head (`User-Agent`, `Host`) differs from machine to machine.
const WRITTEN: [&str; 2] = ["accept", "range"];

/// A running listener; it stops when it is dropped.
#[derive(Debug)]
pub(crate) struct Recorder {
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    _relaying: JoinSet<()>,
}

/// One request.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) target: String,
    /// Those of [`WRITTEN`].
    pub(crate) fields: Vec<(String, String)>,
}

impl Recorder {
    /// Between clients and `door`.
    pub(crate) async fn start(door: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let log = Arc::clone(&asked);
        let mut relaying = JoinSet::new();
        relaying.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                let log = Arc::clone(&log);
                // Clients end connections as they like.
                connections.spawn(async move { drop(relay(near, door, &log).await) });
            }
        });
        Ok(Self {
            address,
            asked,
            _relaying: relaying,
        })
    }

    /// What was asked so far, in its order.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn relay(near: TcpStream, door: SocketAddr, log: &Mutex<Vec<Asked>>) -> Result<()> {
    let far = TcpStream::connect(door).await?;
    let (mut from, mut to) = near.into_split();
    let (mut back, mut there) = far.into_split();
    let listen = async {
        let mut heads = Vec::new();
        loop {
            let before = heads.len();
            if from.read_buf(&mut heads).await? == 0 {
                break;
            }
            let fresh = heads[before..].to_vec();
            // A pull has no content, so that one head follows the other.
            while let Some(end) = heads.windows(4).position(|four| four == b"\r\n\r\n") {
                let head: Vec<u8> = heads.drain(..end + 4).collect();
                let asked = Asked::of(&String::from_utf8_lossy(&head)).context("no request")?;
                log.lock().unwrap_or_else(PoisonError::into_inner).push(asked);
            }
            there.write_all(&fresh).await?;
        }
        there.shutdown().await?;
        anyhow::Ok(())
    };
    tokio::select! {
        listened = listen => listened,
        copied = copy(&mut back, &mut to) => copied.map(drop).context("no more answers"),
    }
}

impl Asked {
    fn of(head: &str) -> Option<Self> {
        let mut lines = head.lines();
        let (method, rest) = lines.next()?.split_once(' ')?;
        let target = rest.split_once(' ')?.0;
        let fields = lines.filter_map(|line| line.split_once(": "));
        let written = fields
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .filter(|(name, _)| WRITTEN.contains(&name.as_str()));
        Some(Self {
            method: method.to_owned(),
            target: target.to_owned(),
            fields: written.collect(),
        })
    }

    /// The requests in a section of the file.
    pub(crate) fn all(section: &str) -> Vec<Self> {
        let mut all: Vec<Self> = Vec::new();
        for line in section.lines() {
            if let Some((name, value)) = line.strip_prefix("  ").and_then(|line| line.split_once(": ")) {
                if let Some(last) = all.last_mut() {
                    last.fields.push((name.to_owned(), value.to_owned()));
                }
            } else if let Some((method, target)) = line.split_once(' ') {
                all.push(Self {
                    method: method.to_owned(),
                    target: target.to_owned(),
                    fields: Vec::new(),
                });
            }
        }
        all
    }
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = format!("{} {}\n", self.method, self.target);
        for (name, value) in &self.fields {
            writeln!(text, "  {name}: {value}")?;
        }
        f.write_str(&text)
    }
}
