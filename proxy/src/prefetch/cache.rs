//! A client of a cache: plain HTTP/1.1 to its data address, one connection a request.

use std::{net::SocketAddr, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use kato_shared::{Digest, api::Problem, digest::Hasher};
use tokio::{net::TcpStream, time::timeout};
use tokio_util::task::TaskTracker;

use super::{Item, item::ANYTHING};
use crate::{ecosystem::Integrity, repr_digest};

/// A cache that does not accept in this time is not there.
const CONNECTING: Duration = Duration::from_secs(10);
/// The head of an answer: the cache may have to try several mirrors first. Then the same for each piece of the body.
const PATIENCE: Duration = Duration::from_secs(150);
/// The most bytes of an explanation that are read.
const MOST_PROBLEM: usize = 64 << 10;

/// A cache that is asked.
#[derive(Debug, Clone)]
pub struct Cache {
    address: SocketAddr,
    connections: TaskTracker,
}

/// Why the cache did not give something.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody is there.
    #[error("the cache at {address} is not reached")]
    Unreachable {
        /// Its address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It ended the connection.
    #[error("the cache broke off")]
    Broken(#[from] hyper::Error),
    /// It says nothing.
    #[error("the cache said nothing for {}s", PATIENCE.as_secs())]
    Silent,
    /// The path is none.
    #[error("`{0}` cannot be asked for")]
    Path(String),
    /// It says no.
    #[error("{status}: {why}")]
    Status {
        /// The status code.
        status: StatusCode,
        /// In its own words.
        why: String,
    },
    /// A document is larger than such documents are.
    #[error("expected a document of at most {most} bytes")]
    TooLarge {
        /// The bound.
        most: usize,
    },
    /// The content is not what was promised.
    #[error("expected {expected}, got {got}")]
    Mismatch {
        /// What a lock file or an index says.
        expected: String,
        /// What came.
        got: String,
    },
    /// The content is shorter or longer than was promised.
    #[error("expected {expected} bytes, got {got}")]
    Size {
        /// What an index says.
        expected: u64,
        /// What came.
        got: u64,
    },
}

impl AskError {
    /// Whether the same may succeed later.
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Broken(_) | Self::Silent => true,
            Self::Status { status, .. } => {
                status.is_server_error() || matches!(status.as_u16(), 408 | 425 | 429)
            }
            Self::Path(_) | Self::TooLarge { .. } | Self::Mismatch { .. } | Self::Size { .. } => false,
        }
    }

    /// Whether the content is other than promised.
    pub const fn is_mismatch(&self) -> bool {
        matches!(self, Self::Mismatch { .. } | Self::Size { .. })
    }

    /// Whether there is nothing there.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Status { status, .. } if matches!(status.as_u16(), 404 | 410))
    }
}

/// Where the cache had something from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// It was held.
    Store,
    /// It came from an upstream, or an upstream said that what was held is still so.
    Upstream {
        /// Whether the cache means to keep it.
        is_stored: bool,
    },
}

impl Source {
    /// What `Cache-Status` says (RFC 9211 §2.1): the cache that answers stands last.
    fn of(headers: &HeaderMap) -> Self {
        let status = headers.get_all("cache-status").iter().next_back();
        let own = status
            .and_then(|status| status.to_str().ok())
            .and_then(|status| status.rsplit(',').next())
            .unwrap_or_default();
        let says = |word: &str| own.split(';').any(|parameter| parameter.trim() == word);
        if says("hit") {
            Self::Store
        } else {
            Self::Upstream {
                is_stored: says("stored"),
            }
        }
    }
}

/// A document in memory.
#[derive(Debug)]
pub struct Document {
    /// The fields of the answer.
    pub headers: HeaderMap,
    /// The content.
    pub bytes: Bytes,
}

impl Cache {
    /// The cache whose data listener is at `address`.
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            connections: TaskTracker::new(),
        }
    }

    /// `http://…` of it, without a slash at the end.
    pub fn base(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The whole of a document of at most `most` bytes.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn document(&self, item: &Item, most: usize) -> Result<Document, AskError> {
        let response = granted(self.send(&Method::GET, item).await?).await?;
        let (parts, mut body) = response.into_parts();
        let mut bytes = BytesMut::new();
        while let Some(piece) = next(&mut body).await? {
            if bytes.len() + piece.len() > most {
                return Err(AskError::TooLarge { most });
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(Document {
            headers: parts.headers,
            bytes: bytes.freeze(),
        })
    }

    /// Reads `item` to its end, so that the cache has it, and compares it with what is promised. `received` hears of each piece.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn drain(&self, item: &Item, received: &(dyn Fn(u64) + Sync)) -> Result<Source, AskError> {
        let response = granted(self.send(&Method::GET, item).await?).await?;
        let source = Source::of(response.headers());
        let mut body = response.into_body();
        let mut hasher = Hasher::new();
        let mut other = item.integrity.and_then(|integrity| integrity.hasher());
        let mut length = 0;
        while let Some(piece) = next(&mut body).await? {
            length += piece.len() as u64;
            hasher.update(&piece);
            if let Some(other) = &mut other {
                other.update(&piece);
            }
            received(length);
        }
        // Content of the right digest is the right content, whatever an index says of its size.
        let size = item.size.filter(|_| item.integrity.is_none());
        if let Some(expected) = size.filter(|expected| *expected != length) {
            return Err(AskError::Size {
                expected,
                got: length,
            });
        }
        let ours: Digest = hasher.finish();
        match item.integrity {
            Some(expected) if expected.received(ours, other) != expected => Err(AskError::Mismatch {
                expected: format!("{expected:?}"),
                got: ours.to_string(),
            }),
            _ => Ok(source),
        }
    }

    /// The bytes of `item` if the cache answers for it without asking anybody; `None` if not, or if that is something else than is promised.
    ///
    /// # Errors
    /// [`AskError`] when there is no cache.
    pub async fn held(&self, item: &Item) -> Result<Option<u64>, AskError> {
        let response = self.send(&Method::HEAD, item).await?;
        let length = response.headers().get(header::CONTENT_LENGTH);
        let length: Option<u64> = length.and_then(|length| length.to_str().ok()?.parse().ok());
        let found = repr_digest::of(response.headers());
        let is_other = match (item.integrity, found) {
            (Some(Integrity::Sha256(wanted)), Some(found)) => wanted != found,
            _ => item
                .size
                .zip(length)
                .is_some_and(|(wanted, found)| wanted != found),
        };
        let is_held = response.status() == StatusCode::OK && !is_other;
        Ok(is_held.then(|| length.or(item.size).unwrap_or(0)))
    }

    async fn send(&self, method: &Method, item: &Item) -> Result<Response<Incoming>, AskError> {
        let unreachable = |source| AskError::Unreachable {
            address: self.address,
            source,
        };
        let mut request = Request::builder()
            .method(method)
            .uri(&item.path)
            .header(header::HOST, self.address.to_string())
            .header(header::ACCEPT, item.accept.as_deref().unwrap_or(ANYTHING))
            .header(header::ACCEPT_ENCODING, "identity")
            .header(
                header::USER_AGENT,
                concat!("kato-proxy/", env!("CARGO_PKG_VERSION")),
            );
        if method == Method::HEAD {
            request = request
                .header(header::CACHE_CONTROL, "only-if-cached, max-stale")
                .header(repr_digest::WANTED, repr_digest::SHA256_ALONE);
        }
        let request = request
            .body(Empty::<Bytes>::new())
            .map_err(|_no_path| AskError::Path(item.path.clone()))?;
        let connecting = timeout(CONNECTING, TcpStream::connect(self.address)).await;
        let connected = connecting.unwrap_or_else(|_elapsed| Err(std::io::ErrorKind::TimedOut.into()));
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(connected.map_err(unreachable)?)).await?;
        // What goes wrong on it is said to whoever waits for an answer.
        self.connections.spawn(async move {
            let _said_to_the_sender = connection.await;
        });
        match timeout(PATIENCE, sender.send_request(request)).await {
            Ok(answered) => Ok(answered?),
            Err(_elapsed) => Err(AskError::Silent),
        }
    }
}

async fn next(body: &mut Incoming) -> Result<Option<Bytes>, AskError> {
    loop {
        let frame = timeout(PATIENCE, body.frame())
            .await
            .map_err(|_elapsed| AskError::Silent)?;
        match frame {
            None => return Ok(None),
            Some(frame) => {
                if let Ok(data) = frame?.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}

/// A 200, or why it is none.
async fn granted(response: Response<Incoming>) -> Result<Response<Incoming>, AskError> {
    let status = response.status();
    if status == StatusCode::OK {
        return Ok(response);
    }
    let mut body = response.into_body();
    let mut text = BytesMut::new();
    while let Ok(Some(piece)) = next(&mut body).await
        && text.len() + piece.len() <= MOST_PROBLEM
    {
        text.extend_from_slice(&piece);
    }
    let why = match serde_json::from_slice::<Problem>(&text) {
        Ok(problem) => format!("{}: {}", problem.title, problem.detail),
        Err(_other) => "the upstream's own answer".to_owned(),
    };
    Err(AskError::Status { status, why })
}
