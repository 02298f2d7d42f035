//! HTTP over a stream: the two versions, each with the task that drives its connection.

use std::time::Duration;

use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use kato_shared::chain::Chain;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::task::TaskTracker;

use super::{
    connect::{End, Stream},
    error::ConnectError,
    outgoing::Content,
};

/// HTTP/2: a connection that carries requests and says nothing is asked whether it lives, and then given this long.
const PING_AFTER: Duration = Duration::from_secs(15);

/// HTTP/1.1 with `end`.
pub(super) async fn http1(
    stream: Stream,
    end: &End,
    tasks: &TaskTracker,
) -> Result<http1::SendRequest<Content>, ConnectError> {
    let begun = http1::Builder::new().handshake(TokioIo::new(stream)).await;
    let (sender, connection) = begun.map_err(|source| no_http(end, source))?;
    tasks.spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(error = %Chain(&error), "a connection to an origin ended");
        }
    });
    Ok(sender)
}

/// HTTP/2 with `end`; the connection keeps `permit` as long as it lives.
pub(super) async fn http2(
    stream: Stream,
    end: &End,
    (tasks, permit): (&TaskTracker, OwnedSemaphorePermit),
) -> Result<http2::SendRequest<Content>, ConnectError> {
    let begun = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_AFTER)
        .keep_alive_timeout(PING_AFTER)
        .handshake(TokioIo::new(stream))
        .await;
    let (sender, connection) = begun.map_err(|source| no_http(end, source))?;
    tasks.spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(error = %Chain(&error), "a connection to an origin ended");
        }
        drop(permit);
    });
    Ok(sender)
}

fn no_http(end: &End, source: hyper::Error) -> ConnectError {
    ConnectError::Handshake {
        to: end.to_string(),
        source,
    }
}
