//! A relay before a web server that counts requests and breaks the n-th of them, in a way that is asked for.
//!
//! Each request has a connection of its own: the server is asked to close it after its answer, so that a connection that breaks
//! takes nothing along but its request.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use url::Url;

/// No request of a test has a longer head.
const MAX_HEAD: usize = 64 * 1024;

/// How a request is cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// The connection is closed before the first byte of the answer.
    BeforeHead,
    /// It is closed in the middle of the answer's head.
    MidHead,
    /// It is closed in the middle of the answer's body.
    MidBody,
    /// It is reset there.
    Reset,
    /// Nothing more comes from there on.
    Hang,
    /// It is closed before the first byte of the answer, and so is every one after it.
    ForGood,
    /// It is closed in the middle of the answer's body, and so is every one whose number is a multiple of it.
    Every,
}

#[derive(Debug, Default)]
struct State {
    requests: u64,
    armed: Option<(u64, Cut)>,
    is_hanging: bool,
    paths: Vec<String>,
    bytes: BTreeMap<String, u64>,
}

impl State {
    /// Counts a request for `path` and gives what happens to it.
    fn next(&mut self, path: &str) -> Option<Cut> {
        self.requests += 1;
        self.paths.push(path.to_owned());
        match self.armed {
            Some((at, Cut::ForGood)) if self.requests >= at => Some(Cut::ForGood),
            Some((at, Cut::Every)) => self.requests.is_multiple_of(at).then_some(Cut::Every),
            Some((at, cut)) if self.requests == at => Some(cut),
            _ => None,
        }
    }
}

#[derive(Debug)]
struct Shared {
    target: SocketAddr,
    state: Mutex<State>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running relay; it stops when it is dropped.
#[derive(Debug)]
pub struct Cutter {
    url: Url,
    shared: Arc<Shared>,
    _relaying: JoinSet<()>,
}

impl Cutter {
    /// A relay on a free port of loopback before the server at `target`.
    ///
    /// # Errors
    /// When no port can be bound.
    pub fn start(target: SocketAddr) -> io::Result<Self> {
        Self::start_with(std::net::TcpListener::bind(("127.0.0.1", 0))?, target)
    }

    /// A relay on a listener that was made elsewhere, e.g. inside the lab.
    ///
    /// # Errors
    /// When the listener cannot be used.
    pub fn start_with(listener: std::net::TcpListener, target: SocketAddr) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let url = Url::parse(&format!("http://{}/", listener.local_addr()?)).map_err(io::Error::other)?;
        let shared = Arc::new(Shared {
            target,
            state: Mutex::default(),
        });
        let mut relaying = JoinSet::new();
        let of_relay = Arc::clone(&shared);
        relaying.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                let shared = Arc::clone(&of_relay);
                // A relay that breaks is what this module is for.
                connections.spawn(async move { drop(relay(near, &shared).await) });
            }
        });
        Ok(Self {
            url,
            shared,
            _relaying: relaying,
        })
    }

    /// Its URL with a final slash.
    pub fn url(&self) -> Url {
        self.url.clone()
    }

    /// Forgets everything and cuts the `at`-th request from now on, counted from 1.
    pub fn arm(&self, at: u64, cut: Cut) {
        *self.shared.state() = State {
            armed: Some((at, cut)),
            ..State::default()
        };
    }

    /// Cuts nothing any more.
    pub fn heal(&self) {
        self.shared.state().armed = None;
    }

    /// All requests since it was armed.
    pub fn requests(&self) -> u64 {
        self.shared.state().requests
    }

    /// What was asked for since it was armed, in order.
    pub fn paths(&self) -> Vec<String> {
        self.shared.state().paths.clone()
    }

    /// Whether a request hangs.
    pub fn is_hanging(&self) -> bool {
        self.shared.state().is_hanging
    }

    /// The bytes of bodies that were passed on since it was armed, by path.
    pub fn bytes(&self) -> BTreeMap<String, u64> {
        self.shared.state().bytes.clone()
    }
}

async fn relay(mut near: TcpStream, shared: &Shared) -> io::Result<()> {
    let head = head(&mut near).await?;
    let path = String::from_utf8_lossy(&head)
        .split(' ')
        .nth(1)
        .unwrap_or_default()
        .to_owned();
    let cut = shared.state().next(&path);
    if matches!(cut, Some(Cut::BeforeHead | Cut::ForGood)) {
        return Ok(());
    }
    let mut far = TcpStream::connect(shared.target).await?;
    far.write_all(head.strip_suffix(b"\r\n").unwrap_or(&head)).await?;
    far.write_all(b"connection: close\r\n\r\n").await?;
    let mut answer = Vec::new();
    far.read_to_end(&mut answer).await?;
    let body = end_of_head(&answer).unwrap_or(answer.len());
    let middle = body + (answer.len() - body) / 2;
    let passed = match cut {
        None => answer.len(),
        Some(Cut::MidHead) => body / 2,
        Some(_) => middle,
    };
    near.set_nodelay(true)?;
    near.write_all(&answer[..passed]).await?;
    *shared.state().bytes.entry(path).or_default() += passed.saturating_sub(body) as u64;
    if cut == Some(Cut::Reset) {
        near.set_zero_linger()?;
    }
    if cut == Some(Cut::Hang) {
        shared.state().is_hanging = true;
        // Until the other side has had enough; it has nothing more to say.
        near.read_to_end(&mut Vec::new()).await?;
    }
    Ok(())
}

/// The head of a request, up to and with its empty line.
async fn head(near: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    while end_of_head(&head).is_none() {
        if near.read_buf(&mut head).await? == 0 || head.len() > MAX_HEAD {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(head)
}

/// Where the body begins.
fn end_of_head(bytes: &[u8]) -> Option<usize> {
    let at = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    Some(at + 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_request_that_was_meant_is_cut_or_all_from_there_on() {
        let cuts = |armed| {
            let mut state = State {
                armed: Some(armed),
                ..State::default()
            };
            [state.next("/"), state.next("/"), state.next("/")]
        };
        assert_eq!(cuts((2, Cut::MidBody)), [None, Some(Cut::MidBody), None]);
        assert_eq!(
            cuts((2, Cut::ForGood)),
            [None, Some(Cut::ForGood), Some(Cut::ForGood)]
        );
    }
}
