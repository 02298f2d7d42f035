//! One connection, from its first bytes to its end.
//!
//! ```text
//! door with TLS   handshake ─ ALPN h2 ────────────────► HTTP/2
//!                           └ else ───────────────────► HTTP/1.1 over TLS
//! door in clear   first bytes ─ preface of HTTP/2 ────► HTTP/2
//!                             └ else ─────────────────► HTTP/1.1, by sendfile
//! HTTP/1.1        hits ───────────────────────────────► `front`
//!                 └ the first request that is none ───► hyper, from then on
//! ```
//! A CONNECT that the pipeline opens goes on in `inside`. Through a Unix socket comes HTTP/1.1 in clear. Every step before the first request has the time of a request head.

use std::{
    convert::Infallible,
    error::Error,
    future::Future,
    os::fd::OwnedFd,
    pin::Pin,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use kato_shared::chain::Chain;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Accepted, Bounds, Ending, Peer,
    answering::AnsweringBody,
    client::{ClientStream, Exchange, HEAD_LIMIT, Times},
    opening::{Protocol, Reread, read_opening},
    refusal::or_refused,
    socket,
    streams::{Streams, Use, Using},
};
use crate::{
    deliver::{FramedBody, ResponseBody, ZeroCopyStream},
    front::{self, Rest, Wire},
    pipeline::{Current, Intercept},
    presence::Transport,
    view::OverTls,
};

/// Room for what hyper reads at once. More than a head may have, so that the head's own limit speaks first.
const READ_LIMIT: usize = HEAD_LIMIT * 2;

/// As [`HEAD_LIMIT`], for HTTP/2, where a head is counted field by field with 32 bytes beside each (RFC 9113 §6.5.2).
const HEADER_LIST_LIMIT: u32 = 64 << 10;

/// Bytes of answers that one HTTP/2 stream holds for its client at once, beside the one piece that is being cut into frames.
const STREAM_BUFFER: usize = 64 << 10;

/// Streams that a client has begun and reset before they were looked at. hyper's own default; with more the connection is ended
/// (CVE-2023-44487, "rapid reset").
const RESET_STREAMS: usize = 20;

/// Streams that were reset because of what the client sent. More end the connection (CVE-2025-8671, "made you reset").
const FAULTY_STREAMS: usize = 256;

/// How often the other end of an HTTP/2 connection is asked whether it is there, and how long it may take to say so.
const PING: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(20));

/// A connection that was accepted.
#[derive(Clone)]
pub(super) struct Connection<A> {
    pub(super) peer: Peer,
    pub(super) bounds: Bounds,
    pub(super) ending: Ending,
    /// Where the requests of HTTP/2 run.
    pub(super) streams: TaskTracker,
    /// Cancelled when nothing is served any more.
    pub(super) over: CancellationToken,
    pub(super) answer: A,
    /// Who answers hits over HTTP/1.1 before hyper reads anything.
    pub(super) front: Option<Current>,
}

pub(super) type Failure = Box<dyn Error + Send + Sync>;

/// How a connection ended: `Some` where it goes on, opened.
type Served = Result<Option<Opened>, Failure>;

/// What is inside a connection, and a handle to its socket.
type Opened = (Intercept, Option<OwnedFd>);

impl<A, F> Connection<A>
where
    A: Fn(Request<Incoming>, Peer) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<ResponseBody>> + Send + 'static,
{
    /// Serves until the connection ends.
    pub(super) async fn serve(self, accepted: Accepted) {
        if let Accepted::Clear(stream) | Accepted::Tls(stream, _) = &accepted {
            socket::prepare(stream, self.peer.ip(), self.bounds.progress_timeout);
        }
        let served = match accepted {
            Accepted::Clear(stream) => self.in_clear(stream).await,
            Accepted::Tls(stream, acceptor) => self.over_tls(stream, &acceptor).await,
            Accepted::Unix(stream) => {
                let opened = self.http1(Bytes::new(), stream, |_| {}).await;
                opened.map(|opened| opened.map(|intercept| (intercept, None)))
            }
        };
        let served = match served {
            // In the same task, and so with the same permit.
            Ok(Some((intercept, line))) => self.inside(intercept, line).await,
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = served {
            tracing::debug!(peer = %self.peer, error = %Chain(&*error), "connection ended");
        }
    }

    async fn over_tls(&self, stream: TcpStream, acceptor: &TlsAcceptor) -> Served {
        let Some(stream) = self.opening(acceptor.accept(stream)).await? else {
            return Ok(None);
        };
        if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
            self.http2(stream, over_tls).await.map(|()| None)
        } else {
            let read = Bytes::new();
            match self.front(Rest { stream, read }).await {
                Some(rest) => {
                    let line = line_of(&rest);
                    let opened = self.http1(rest.read, rest.stream, over_tls).await?;
                    Ok(opened.map(|intercept| (intercept, line)))
                }
                None => Ok(None),
            }
        }
    }

    async fn in_clear(&self, mut stream: TcpStream) -> Served {
        let Some(Some((protocol, ahead))) = self.opening(read_opening(&mut stream)).await? else {
            return Ok(None);
        };
        match protocol {
            Protocol::Tls => {
                tracing::debug!(peer = %self.peer, "TLS where none is spoken; the connection is closed");
                Ok(None)
            }
            Protocol::Http2 => self
                .http2(Reread::new(ahead, stream), |_| {})
                .await
                .map(|()| None),
            Protocol::Http1 => {
                let read = ahead;
                match self.front(Rest { stream, read }).await {
                    Some(rest) => {
                        let line = line_of(&rest);
                        let opened = self.http1_by_sendfile(rest.stream, rest.read).await?;
                        Ok(opened.map(|intercept| (intercept, line)))
                    }
                    None => Ok(None),
                }
            }
        }
    }

    /// Lets `step` take the time of a request head; `None` when the shutdown begins before its end: nothing was asked yet.
    pub(super) async fn opening<T, E: Into<Failure>>(
        &self,
        step: impl Future<Output = Result<T, E>>,
    ) -> Result<Option<T>, Failure> {
        tokio::select! {
            ended = timeout(self.bounds.header_timeout, step) => match ended {
                Ok(ended) => ended.map(Some).map_err(Into::into),
                Err(elapsed) => Err(elapsed.into()),
            },
            () = self.ending.begun.cancelled() => Ok(None),
        }
    }

    /// Answers what can be answered the short way; what is left is hyper's.
    async fn front<S: Wire>(&self, rest: Rest<S>) -> Option<Rest<S>> {
        let Some(current) = &self.front else {
            return Some(rest);
        };
        let times = front::Times {
            head: self.bounds.header_timeout,
            idle: self.bounds.idle_timeout,
            progress: self.bounds.progress_timeout,
        };
        front::serve(rest, (current, self.peer.ip()), times, &self.ending).await
    }

    /// HTTP/1.1 in clear, of which `ahead` was read: parts of files go out by `sendfile`, interim responses beside hyper.
    async fn http1_by_sendfile(&self, stream: TcpStream, ahead: Bytes) -> Result<Option<Intercept>, Failure> {
        let (stream, queue) = ZeroCopyStream::new(stream);
        let waiting = stream.interim();
        self.http1(ahead, stream, move |request| {
            request.extensions_mut().insert(queue.clone());
            if let Some(interim) = waiting.begin(request.version()) {
                request.extensions_mut().insert(interim);
            }
        })
        .await
    }

    /// HTTP/1.1, of which `ahead` was read; `equip` gives each request what it needs beside its head.
    pub(super) async fn http1<S>(
        &self,
        ahead: Bytes,
        stream: S,
        equip: impl Fn(&mut Request<Incoming>),
    ) -> Result<Option<Intercept>, Failure>
    where
        S: AsyncRead + AsyncWrite + Transport + Unpin + Send + 'static,
    {
        let exchange = Exchange::default();
        let times = Times {
            head: self.bounds.header_timeout,
            idle: self.bounds.idle_timeout,
        };
        let stream = ClientStream::new(ahead, stream, exchange.clone(), times);
        let opened = Arc::new(OnceLock::new());
        let service = service_fn(|mut request: Request<Incoming>| {
            let mut under_way = exchange.begin();
            equip(&mut request);
            let is_connect = request.method() == Method::CONNECT;
            let interim = request.extensions().get::<crate::interim::Interim>().cloned();
            let answering = or_refused((self.answer)(request, self.peer), self.ending.cut.clone());
            let opened = Arc::clone(&opened);
            async move {
                let mut response = answering.await;
                if let Some(interim) = interim {
                    interim.close();
                }
                if let Some(intercept) = response.extensions_mut().remove::<Intercept>() {
                    // A connection is handed over once.
                    opened.get_or_init(|| intercept);
                }
                if is_connect && response.status().is_success() {
                    under_way.for_good();
                }
                Ok::<_, Infallible>(response.map(|body| AnsweringBody { body, under_way }))
            }
        });
        let connection = http1::Builder::new()
            // Ours, see `client`.
            .header_read_timeout(None)
            .max_buf_size(READ_LIMIT)
            .half_close(true)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        tokio::pin!(connection);
        tokio::select! {
            served = connection.as_mut() => served?,
            () = self.ending.begun.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.as_mut().await?;
            }
        }
        Ok(opened.get().cloned())
    }

    /// HTTP/2; `equip` gives each request what it needs beside its head.
    pub(super) async fn http2<S>(
        &self,
        stream: S,
        equip: impl Fn(&mut Request<Incoming>),
    ) -> Result<(), Failure>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let use_of = Use::new();
        let service = service_fn(|mut request: Request<Incoming>| {
            equip(&mut request);
            let answering = or_refused((self.answer)(request, self.peer), self.ending.cut.clone());
            let (beside, use_of) = (self.clone(), Arc::clone(&use_of));
            async move {
                let mut response = answering.await;
                if let Some(intercept) = response.extensions_mut().remove::<Intercept>() {
                    // One stream of many: its end, or that of the connection, is the end of what is inside.
                    beside.inside_beside(intercept, Using::begin(&use_of));
                }
                Ok::<_, Infallible>(response.map(FramedBody::from))
            }
        });
        let over = self.over.child_token();
        // Whatever ends this function ends its streams, too.
        let _over = over.clone().drop_guard();
        let streams = Streams {
            tasks: self.streams.clone(),
            patience: self.bounds.progress_timeout,
            over,
            use_of: Arc::clone(&use_of),
        };
        let connection = http2::Builder::new(streams)
            .timer(TokioTimer::new())
            .max_concurrent_streams(self.bounds.streams)
            .max_header_list_size(HEADER_LIST_LIMIT)
            .max_send_buf_size(STREAM_BUFFER)
            .max_pending_accept_reset_streams(RESET_STREAMS)
            .max_local_error_reset_streams(FAULTY_STREAMS)
            .keep_alive_interval(PING.0)
            .keep_alive_timeout(PING.1)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection: Pin<Box<_>> = Box::pin(connection);
        let is_idle = tokio::select! {
            served = connection.as_mut() => return Ok(served?),
            () = self.ending.begun.cancelled() => false,
            () = use_of.idle(self.bounds.idle_timeout) => true,
        };
        // GOAWAY: streams under way end, no more begin.
        connection.as_mut().graceful_shutdown();
        if is_idle {
            // The other end had nothing to ask; it is not waited for longer than a slow reader.
            timeout(self.bounds.progress_timeout, connection).await??;
        } else {
            connection.await?;
        }
        Ok(())
    }
}

/// A second handle to the socket of a connection that may be opened: what is inside does not show it.
fn line_of<S: Wire>(rest: &Rest<S>) -> Option<OwnedFd> {
    let may_be_opened = rest.read.starts_with(b"CONNECT ");
    let line = rest.stream.line().filter(|_| may_be_opened)?;
    line.try_clone_to_owned().ok()
}

/// Marks a request that came by the door with TLS.
fn over_tls(request: &mut Request<Incoming>) {
    request.extensions_mut().insert(OverTls);
}
