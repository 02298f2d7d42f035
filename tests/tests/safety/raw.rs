//! Both ends by hand: an origin that records bytes and answers with bytes, and a client that sends bytes.
//!
//! No library stands between the table and the socket, since what libraries repair is what attacks are made of.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};

/// Long beside anything that loopback does.
const PATIENCE: Duration = Duration::from_secs(20);

/// An origin that answers each path with given bytes, and every other one with a response that may be stored and that
/// shows the request's head: whatever reached the origin reaches those whom its answer reaches.
#[derive(Debug)]
pub(crate) struct RawOrigin {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
    _listening: JoinSet<()>,
}

#[derive(Debug, Default)]
struct State {
    answers: Mutex<HashMap<String, Vec<u8>>>,
    heads: Mutex<Vec<String>>,
}

impl RawOrigin {
    pub(crate) async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let state = Arc::new(State::default());
        let mut listening = JoinSet::new();
        let shared = Arc::clone(&state);
        listening.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let state = Arc::clone(&shared);
                connections.spawn(async move { serve(stream, &state).await.ok() });
            }
        });
        Ok(Self {
            address,
            state,
            _listening: listening,
        })
    }

    /// Answers requests for `path` with these bytes, and closes the connection where they say so.
    pub(crate) fn answer(&self, path: &str, bytes: &[u8]) {
        let mut answers = self.state.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.insert(path.to_owned(), bytes.to_vec());
    }

    /// The heads received so far.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.state
            .heads
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The request lines received so far, without the version.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.heads()
            .iter()
            .filter_map(|head| Some(head.lines().next()?.trim_end_matches(" HTTP/1.1").to_owned()))
            .collect()
    }
}

async fn serve(mut stream: TcpStream, state: &State) -> Result<()> {
    let mut received = Vec::new();
    while let Some(head) = head(&mut stream, &mut received).await? {
        state
            .heads
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(head.clone());
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let answer = state
            .answers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&path)
            .cloned();
        let answer = answer.unwrap_or_else(|| mirror_of(&head));
        stream.write_all(&answer).await?;
        if String::from_utf8_lossy(&answer)
            .to_ascii_lowercase()
            .contains("connection: close")
        {
            return Ok(stream.shutdown().await?);
        }
    }
    Ok(())
}

fn mirror_of(head: &str) -> Vec<u8> {
    let length = head.len();
    let fields = format!("Cache-Control: max-age=600\r\nContent-Length: {length}");
    let body = if head.starts_with("HEAD ") { "" } else { head };
    format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n{body}").into_bytes()
}

/// The next head, after its content was read away.
async fn head(stream: &mut TcpStream, received: &mut Vec<u8>) -> Result<Option<String>> {
    let end = loop {
        if let Some(at) = position(received, b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(received).await? == 0 {
            return Ok(None);
        }
    };
    let head = String::from_utf8_lossy(&received[..end]).into_owned();
    received.drain(..end);
    let length = field(&head, "content-length")
        .and_then(|value| value.parse().ok())
        .unwrap_or(0);
    while received.len() < length {
        if stream.read_buf(received).await? == 0 {
            return Ok(None);
        }
    }
    received.drain(..length);
    Ok(Some(head))
}

/// One answer as it stood on the wire.
#[derive(Debug, Clone, Default)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    /// Whether the body ended where its framing said.
    pub(crate) is_whole: bool,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The first value of a field.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        field(&self.head, name)
    }
}

/// Sends `bytes` on one connection, and reads everything that comes back until its end.
pub(crate) async fn exchange(to: SocketAddr, bytes: &[u8]) -> Result<Vec<Answer>> {
    let conversation = async {
        let mut stream = TcpStream::connect(to).await?;
        // Somebody who has refused us already may have closed.
        let _refused_already = stream.write_all(bytes).await;
        let _closed_already = stream.shutdown().await;
        let mut received = Vec::new();
        let _end_or_reset = stream.read_to_end(&mut received).await;
        anyhow::Ok(received)
    };
    let received = timeout(PATIENCE, conversation)
        .await
        .context("the connection stays open")??;
    Ok(answers(&received))
}

/// Splits what a server sent into answers, by their framing alone.
fn answers(mut bytes: &[u8]) -> Vec<Answer> {
    let mut found = Vec::new();
    while let Some(end) = position(bytes, b"\r\n\r\n") {
        let head = String::from_utf8_lossy(&bytes[..end + 4]).into_owned();
        let status = head.get(9..12).and_then(|code| code.parse().ok()).unwrap_or(0);
        let rest = &bytes[end + 4..];
        let (body, used, is_whole) = body(&head, status, rest);
        found.push(Answer {
            status,
            head,
            body,
            is_whole,
        });
        bytes = &rest[used..];
    }
    found
}

fn body(head: &str, status: u16, rest: &[u8]) -> (Vec<u8>, usize, bool) {
    if matches!(status, 100..=199 | 204 | 304) {
        return (Vec::new(), 0, true);
    }
    if field(head, "transfer-encoding").is_some() {
        return chunked(rest);
    }
    match field(head, "content-length").and_then(|value| value.parse::<usize>().ok()) {
        Some(length) => {
            let there = length.min(rest.len());
            (rest[..there].to_vec(), there, there == length)
        }
        None => (rest.to_vec(), rest.len(), true),
    }
}

fn chunked(rest: &[u8]) -> (Vec<u8>, usize, bool) {
    let (mut body, mut at) = (Vec::new(), 0);
    while let Some(line) = position(&rest[at..], b"\r\n") {
        let size = String::from_utf8_lossy(&rest[at..at + line]).into_owned();
        let Ok(size) = usize::from_str_radix(size.trim(), 16) else {
            break;
        };
        at += line + 2;
        if size == 0 {
            return (body, (at + 2).min(rest.len()), true);
        }
        let Some(chunk) = rest.get(at..at + size) else {
            break;
        };
        body.extend_from_slice(chunk);
        at = (at + size + 2).min(rest.len());
    }
    (body, rest.len(), false)
}

fn field<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    head.lines().skip(1).find_map(|line| {
        let (known, value) = line.split_once(':')?;
        known.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

fn position(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}
