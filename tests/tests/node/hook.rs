//! A web hook on loopback: keeps what is posted to it, and answers as a test wants it to.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context as _, Result};
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpListener,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

/// How it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// 204.
    Well,
    /// This status; with a redirect to itself where it is one.
    Status(u16),
    /// Not at all.
    Silent,
}

/// What was posted.
#[derive(Debug, Clone)]
pub(crate) struct Posted {
    pub(crate) path: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Posted {
    pub(crate) fn document(&self) -> Result<Value> {
        Ok(serde_json::from_slice(&self.body)?)
    }
}

#[derive(Debug)]
struct State {
    manner: Manner,
    posted: Vec<Posted>,
}

/// A running hook; it stops when it is dropped.
#[derive(Debug)]
pub(crate) struct Hook {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    _tasks: JoinSet<()>,
}

impl Hook {
    pub(crate) async fn start(manner: Manner) -> Result<Self> {
        Self::with(manner, None).await
    }

    /// A hook behind TLS, when there is an acceptor.
    pub(crate) async fn with(manner: Manner, tls: Option<TlsAcceptor>) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let state = Arc::new(Mutex::new(State {
            manner,
            posted: Vec::new(),
        }));
        let mut tasks = JoinSet::new();
        let shared = Arc::clone(&state);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, state) = (tls.clone(), Arc::clone(&shared));
                connections.spawn(async move {
                    let served = match tls {
                        None => serve(stream, &state).await,
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => serve(stream, &state).await,
                            Err(_refused) => Ok(()),
                        },
                    };
                    // A client that leaves is no failure of the hook.
                    served.ok();
                });
            }
        });
        Ok(Self {
            address,
            state,
            _tasks: tasks,
        })
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) const fn port(&self) -> u16 {
        self.address.port()
    }

    pub(crate) fn answer(&self, manner: Manner) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).manner = manner;
    }

    pub(crate) fn posted(&self) -> Vec<Posted> {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .posted
            .clone()
    }

    /// What happened, as the documents say it.
    pub(crate) fn events(&self) -> Result<Vec<String>> {
        let event = |posted: &Posted| {
            Ok(posted.document()?["event"]
                .as_str()
                .context("an event")?
                .to_owned())
        };
        self.posted().iter().map(event).collect()
    }
}

async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, state: &Mutex<State>) -> Result<()> {
    let posted = request(&mut stream).await?;
    let host = posted.headers.get("host").cloned().unwrap_or_default();
    let manner = {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        state.posted.push(posted);
        state.manner
    };
    let head = match manner {
        Manner::Silent => return std::future::pending().await,
        Manner::Well => "204 No Content\r\n".to_owned(),
        Manner::Status(status @ 300..=399) => {
            format!("{status} Elsewhere\r\nlocation: http://{host}/elsewhere\r\n")
        }
        Manner::Status(status) => format!("{status} Not So\r\ncontent-length: 0\r\n"),
    };
    stream
        .write_all(format!("HTTP/1.1 {head}connection: close\r\n\r\n").as_bytes())
        .await?;
    Ok(stream.shutdown().await?)
}

async fn request(stream: &mut (impl AsyncRead + Unpin)) -> Result<Posted> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        anyhow::ensure!(stream.read_buf(&mut bytes).await? > 0, "the head was cut off");
    };
    let mut body = bytes.split_off(end);
    let head = String::from_utf8(bytes)?;
    let mut lines = head.lines();
    let path = lines
        .next()
        .and_then(|line| line.split(' ').nth(1))
        .context("a request line")?;
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length: usize = headers.get("content-length").context("a length")?.parse()?;
    while body.len() < length {
        anyhow::ensure!(stream.read_buf(&mut body).await? > 0, "the body was cut off");
    }
    Ok(Posted {
        path: path.to_owned(),
        headers,
        body,
    })
}
