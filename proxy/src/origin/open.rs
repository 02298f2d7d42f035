//! HTTP over a stream: the two versions, each with the task that drives its connection.

use std::time::Duration;

use bytes::Bytes;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use kato_shared::chain::Chain;
use tokio::{
    net::TcpStream,
    sync::{OwnedSemaphorePermit, oneshot},
};
use tokio_util::task::TaskTracker;

use super::{connect::Stream, outgoing::Content};

/// HTTP/2: a connection that carries requests and says nothing is asked whether it lives, and then given this long.
const PING_AFTER: Duration = Duration::from_secs(15);

/// An HTTP/1.1 connection for one request at a time.
pub(super) struct Http1 {
    pub(super) sender: http1::SendRequest<Content>,
    /// Where the task that drives the connection can be asked for the socket; `None` where there is none that could be read past
    /// hyper.
    pub(super) socket: Option<oneshot::Sender<oneshot::Sender<Socket>>>,
}

/// A connection without hyper.
pub(super) struct Socket {
    pub(super) stream: TcpStream,
    /// What was read and nobody has seen, in order.
    pub(super) read: [Bytes; 2],
}

/// HTTP/1.1 by hyper.
pub(super) async fn http1(stream: Stream, tasks: &TaskTracker) -> hyper::Result<Http1> {
    let is_tcp = stream.is_tcp();
    let begun = http1::Builder::new().handshake(TokioIo::new(stream)).await;
    let (sender, mut connection) = begun?;
    let (socket, wanted) = oneshot::channel::<oneshot::Sender<Socket>>();
    tasks.spawn(async move {
        let ended = tokio::select! {
            biased;
            Ok(reply) = wanted => {
                let parts = connection.into_parts();
                if let Ok((stream, unread)) = parts.io.into_inner().into_tcp() {
                    let read = [parts.read_buf, unread];
                    // Whoever asked may have gone: then the connection ends here.
                    let _gone = reply.send(Socket { stream, read });
                }
                return;
            }
            ended = &mut connection => ended,
        };
        if let Err(error) = ended {
            tracing::debug!(error = %Chain(&error), "a connection to an origin ended");
        }
    });
    Ok(Http1 {
        sender,
        socket: is_tcp.then_some(socket),
    })
}

/// HTTP/2; the connection keeps `permit` as long as it lives.
pub(super) async fn http2(
    stream: Stream,
    (tasks, permit): (&TaskTracker, OwnedSemaphorePermit),
) -> hyper::Result<http2::SendRequest<Content>> {
    let begun = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_AFTER)
        .keep_alive_timeout(PING_AFTER)
        .handshake(TokioIo::new(stream))
        .await;
    let (sender, connection) = begun?;
    tasks.spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(error = %Chain(&error), "a connection to an origin ended");
        }
        drop(permit);
    });
    Ok(sender)
}
