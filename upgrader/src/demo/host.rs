//! The upgrade host of the demonstration: a web server for one folder that counts what it sends.
//!
//! It does what any static web server does for a repository: GET and HEAD, entity tags, conditional requests, single
//! ranges, and `Cache-Control` by whether a name can ever mean something else (TUF 1.0, §6.2: everything but
//! `timestamp.json` has its version or digest in its name).
//!
//! Deliberately absent: TLS, directory listings, symbolic links out of the folder, and everything else of a real server.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    io::{self, SeekFrom},
    net::{Ipv4Addr, SocketAddr},
    ops::Range,
    path::{Component, Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, StreamBody, combinators::BoxBody};
use hyper::{
    body::{Frame, Incoming},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    fs::File,
    io::{AsyncReadExt as _, AsyncSeekExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use url::Url;

use crate::prepare::place::http_url;

/// Bytes of one piece of a body.
const PIECE: usize = 256 * 1024;

/// What was asked for one path, and sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Count {
    /// GET requests that were answered with a body or a 304.
    pub(super) requests: u64,
    /// Bytes of bodies that were handed to the network.
    pub(super) bytes: u64,
}

type Counts = Arc<Mutex<BTreeMap<String, Count>>>;
type Body = BoxBody<Bytes, io::Error>;

/// A web server on a port of its own; it stops when it is dropped.
#[derive(Debug)]
pub(super) struct UpgradeHost {
    address: SocketAddr,
    counts: Counts,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl UpgradeHost {
    /// Serves `folder` on a free port of loopback.
    pub(super) async fn start(folder: PathBuf) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let host = Self {
            address: listener.local_addr()?,
            counts: Counts::default(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        let shared = Arc::new(Shared {
            folder,
            counts: Arc::clone(&host.counts),
        });
        host.tasks
            .spawn(accept(listener, shared, host.stop.clone(), host.tasks.clone()));
        Ok(host)
    }

    /// Its address as `[release].url`.
    pub(super) fn url(&self) -> Url {
        http_url(self.address)
    }

    /// What was asked for since the last [`Self::forget`], by path.
    pub(super) fn counts(&self) -> BTreeMap<String, Count> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Starts counting from nothing.
    pub(super) fn forget(&self) {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Drop for UpgradeHost {
    fn drop(&mut self) {
        self.stop.cancel();
        self.tasks.close();
    }
}

#[derive(Debug)]
struct Shared {
    folder: PathBuf,
    counts: Counts,
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, stop: CancellationToken, tasks: TaskTracker) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((connection, _client)) => {
                tasks.spawn(
                    stop.clone()
                        .run_until_cancelled_owned(serve(connection, Arc::clone(&shared))),
                );
            }
            Err(error) => tracing::warn!(%error, "the upgrade host could not accept a connection"),
        }
    }
}

async fn serve(connection: TcpStream, shared: Arc<Shared>) {
    let service = service_fn(move |request| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, Infallible>(shared.answer(&request).await) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(connection), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection to the upgrade host broke off");
    }
}

impl Shared {
    async fn answer(&self, request: &Request<Incoming>) -> Response<Body> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return plain(StatusCode::METHOD_NOT_ALLOWED);
        }
        let path = request.uri().path();
        let mut response = match self.file(request).await {
            Ok(response) => response,
            Err(error) if error.kind() == io::ErrorKind::NotFound => plain(StatusCode::NOT_FOUND),
            Err(error) => {
                tracing::error!(%error, path, "the upgrade host cannot read a file");
                plain(StatusCode::INTERNAL_SERVER_ERROR)
            }
        };
        let lifetime = if response.status() != StatusCode::NOT_FOUND && is_immutable(path) {
            "public, max-age=31536000, immutable"
        } else {
            "public, max-age=60"
        };
        response
            .headers_mut()
            .insert(header::CACHE_CONTROL, HeaderValue::from_static(lifetime));
        response
    }

    async fn file(&self, request: &Request<Incoming>) -> io::Result<Response<Body>> {
        let path = request.uri().path();
        let file = File::open(self.folder.join(below(path)?)).await?;
        let about = file.metadata().await?;
        if !about.is_file() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let modified = about
            .modified()?
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        let etag = format!("\"{:x}-{:x}\"", about.len(), modified.as_nanos());
        let asked = |name| {
            request
                .headers()
                .get(name)
                .and_then(|value: &HeaderValue| value.to_str().ok())
        };
        let mut response = Response::builder()
            .header(header::ETAG, &etag)
            .header(header::ACCEPT_RANGES, "bytes");
        if asked(header::IF_NONE_MATCH).is_some_and(|known| known.split(',').any(|one| one.trim() == etag)) {
            self.count(path, |count| count.requests += 1);
            return built(response.status(StatusCode::NOT_MODIFIED), none());
        }
        let continues = asked(header::IF_RANGE).is_none_or(|known| known == etag);
        let range = match wanted(asked(header::RANGE).filter(|_| continues), about.len()) {
            Wanted::Whole => 0..about.len(),
            Wanted::Part(range) => {
                let shown = format!("bytes {}-{}/{}", range.start, range.end - 1, about.len());
                response = response
                    .status(StatusCode::PARTIAL_CONTENT)
                    .header(header::CONTENT_RANGE, shown);
                range
            }
            Wanted::Unsatisfiable => {
                let shown = format!("bytes */{}", about.len());
                response = response.header(header::CONTENT_RANGE, shown);
                return built(response.status(StatusCode::RANGE_NOT_SATISFIABLE), none());
            }
        };
        response = response.header(header::CONTENT_LENGTH, range.end - range.start);
        if request.method() == Method::HEAD {
            return built(response, none());
        }
        self.count(path, |count| count.requests += 1);
        built(response, self.body(path, file, range).await?)
    }

    async fn body(&self, path: &str, mut file: File, range: Range<u64>) -> io::Result<Body> {
        file.seek(SeekFrom::Start(range.start)).await?;
        let (counts, path) = (Arc::clone(&self.counts), path.to_owned());
        let pieces = stream::try_unfold((file, range.end - range.start), move |(mut file, left)| {
            let (counts, path) = (Arc::clone(&counts), path.clone());
            async move {
                if left == 0 {
                    return Ok(None);
                }
                let size = usize::try_from(left).map_or(PIECE, |left| left.min(PIECE));
                let mut piece = vec![0; size];
                file.read_exact(&mut piece).await?;
                let sent = piece.len() as u64;
                let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
                counts.entry(path).or_default().bytes += sent;
                drop(counts);
                Ok(Some((Frame::data(Bytes::from(piece)), (file, left - sent))))
            }
        });
        Ok(StreamBody::new(Synced(Mutex::new(Box::pin(pieces)))).boxed())
    }

    fn count(&self, path: &str, change: impl FnOnce(&mut Count)) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        change(counts.entry(path.to_owned()).or_default());
    }
}

/// Makes a stream that one task polls shareable, as a boxed body demands; the lock is never contended.
struct Synced<S>(Mutex<std::pin::Pin<Box<S>>>);

impl<S: stream::Stream> stream::Stream for Synced<S> {
    type Item = S::Item;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<S::Item>> {
        let stream = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        stream.as_mut().poll_next(context)
    }
}

fn none() -> Body {
    Empty::new().map_err(|never| match never {}).boxed()
}

fn built(response: http::response::Builder, body: Body) -> io::Result<Response<Body>> {
    response.body(body).map_err(io::Error::other)
}

fn plain(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(none());
    *response.status_mut() = status;
    response
}

/// Whether the name's content can never change.
fn is_immutable(path: &str) -> bool {
    let is_versioned = |name: &str| name.starts_with(|first: char| first.is_ascii_digit());
    path.starts_with("/targets/") || path.strip_prefix("/metadata/").is_some_and(is_versioned)
}

/// The path below the folder; names that lead elsewhere are not found.
fn below(path: &str) -> io::Result<PathBuf> {
    let relative = Path::new(path.trim_start_matches('/'));
    let inside = relative
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    let plain = !path.contains('%') && inside;
    plain
        .then(|| relative.to_owned())
        .ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// What a `Range` field asks for (RFC 9110 §14.1.2).
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    /// All of it: the field is absent, or not one range of bytes, and then ignored.
    Whole,
    Part(Range<u64>),
    Unsatisfiable,
}

/// What `field` asks of a representation of `size` bytes.
fn wanted(field: Option<&str>, size: u64) -> Wanted {
    match field.and_then(|field| range_of(field, size)) {
        None => Wanted::Whole,
        Some(range) if range.start < range.end => Wanted::Part(range),
        Some(_empty) => Wanted::Unsatisfiable,
    }
}

/// One byte range; an empty one when it is outside of the representation.
fn range_of(field: &str, size: u64) -> Option<Range<u64>> {
    let (first, last) = field.strip_prefix("bytes=")?.split_once('-')?;
    if first.is_empty() {
        let suffix: u64 = last.parse().ok()?;
        return Some(size.saturating_sub(suffix)..size);
    }
    let end = if last.is_empty() {
        size
    } else {
        last.parse::<u64>().ok()?.saturating_add(1)
    };
    Some(first.parse().ok()?..end.min(size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc9110_s14_1_2_one_range_is_understood() {
        let of = |field| wanted(Some(field), 10);
        assert_eq!(of("bytes=0-3"), Wanted::Part(0..4));
        assert_eq!(of("bytes=4-"), Wanted::Part(4..10));
        assert_eq!(of("bytes=8-99"), Wanted::Part(8..10));
        assert_eq!(of("bytes=-3"), Wanted::Part(7..10));
        assert_eq!(of("bytes=10-"), Wanted::Unsatisfiable);
        assert_eq!(of("bytes=-0"), Wanted::Unsatisfiable);
        for ignored in ["bytes=0-1,3-4", "items=0-1", "bytes=a-b", "bytes=-"] {
            assert_eq!(of(ignored), Wanted::Whole, "{ignored}");
        }
        assert_eq!(wanted(None, 10), Wanted::Whole);
    }

    #[test]
    fn nothing_outside_the_folder_has_a_name() {
        assert_eq!(
            below("/metadata/1.root.json").unwrap(),
            Path::new("metadata/1.root.json")
        );
        for path in ["/../etc/passwd", "/a/../../b", "/%2e%2e/x", "/./a/.."] {
            assert!(below(path).is_err(), "{path}");
        }
    }

    #[test]
    fn only_the_timestamp_can_change() {
        assert!(is_immutable("/metadata/2.snapshot.json") && is_immutable("/targets/ab.graph.json"));
        assert!(!is_immutable("/metadata/timestamp.json") && !is_immutable("/"));
    }

    /// Asks as any client would, and gives status, fields and body.
    async fn ask(host: &UpgradeHost, head: &str) -> String {
        use tokio::io::AsyncWriteExt as _;
        let mut connection = TcpStream::connect(host.address).await.unwrap();
        let request = format!("{head}\r\nhost: h\r\nconnection: close\r\n\r\n");
        connection.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn what_is_sent_is_counted_by_path() {
        let folder = tempfile::tempdir().unwrap();
        let metadata = folder.path().join("metadata");
        kato_shared::durable::create_folder(&metadata).unwrap();
        kato_shared::durable::write(&metadata.join("timestamp.json"), b"0123456789", 0o644).unwrap();
        let host = UpgradeHost::start(folder.path().to_owned()).await.unwrap();
        let path = "/metadata/timestamp.json";
        let whole = ask(&host, &format!("GET {path} HTTP/1.1")).await;
        assert!(
            whole.starts_with("HTTP/1.1 200 ") && whole.ends_with("\r\n\r\n0123456789"),
            "{whole}"
        );
        assert!(whole.contains("cache-control: public, max-age=60\r\n"), "{whole}");
        let part = ask(&host, &format!("GET {path} HTTP/1.1\r\nrange: bytes=8-")).await;
        assert!(
            part.starts_with("HTTP/1.1 206 ") && part.ends_with("\r\n\r\n89"),
            "{part}"
        );
        let etag = whole
            .lines()
            .find_map(|line| line.strip_prefix("etag: "))
            .unwrap();
        let known = ask(&host, &format!("GET {path} HTTP/1.1\r\nif-none-match: {etag}")).await;
        assert!(known.starts_with("HTTP/1.1 304 "), "{known}");
        let head = ask(&host, &format!("HEAD {path} HTTP/1.1")).await;
        assert!(
            head.contains("content-length: 10\r\n") && head.ends_with("\r\n\r\n"),
            "{head}"
        );
        assert!(
            ask(&host, "GET /none HTTP/1.1")
                .await
                .starts_with("HTTP/1.1 404 ")
        );
        assert!(ask(&host, "POST / HTTP/1.1").await.starts_with("HTTP/1.1 405 "));
        let expected = Count {
            requests: 3,
            bytes: 12,
        };
        assert_eq!(host.counts(), BTreeMap::from([(path.to_owned(), expected)]));
        host.forget();
        assert!(host.counts().is_empty());
    }
}
