//! Accepts connections and serves HTTP/1.1 on them, as many at once as there are permits.
//!
//! A permit is taken before `accept`: a connection that cannot be served yet waits in the kernel's queue, not in our memory.
//! On shutdown no more are accepted, idle ones are closed, and answers under way get the grace period.

use std::{convert::Infallible, future::Future, io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use kato_shared::chain::Chain;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    deliver::{ResponseBody, ZeroCopyStream},
    front::{self, Rest},
    pipeline::Pipeline,
};

/// After `accept` failed (usually: no more file descriptors), how long to wait for some to come back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The most bytes of a request head; a larger one gets 431. Unfinished heads are what clients can fill our memory with, so
/// this times the number of connections bounds it.
const HEAD_LIMIT: usize = 128 << 10;

/// How connections are served.
#[derive(Debug, Clone)]
pub struct Serving {
    /// Connections at once.
    pub connections: u32,
    /// The time in which a request head must arrive.
    pub header_timeout: Duration,
    /// The time that answers under way get after the shutdown began.
    pub grace: Duration,
    /// Cancelled when the shutdown begins.
    pub shutdown: CancellationToken,
    /// Who answers hits before hyper reads anything, and how long it waits.
    pub front: Option<(Pipeline, front::Times)>,
}

impl Serving {
    /// Serves `listener` until the shutdown and its grace are over; `answer` makes the response.
    pub async fn run<A, F>(self, listener: TcpListener, answer: A)
    where
        A: Fn(Request<Incoming>, SocketAddr) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<ResponseBody>> + Send + 'static,
    {
        let permits = Arc::new(Semaphore::new(
            usize::try_from(self.connections).unwrap_or(Semaphore::MAX_PERMITS),
        ));
        let connections = TaskTracker::new();
        let cut = CancellationToken::new();
        loop {
            let accepted = tokio::select! {
                () = self.shutdown.cancelled() => break,
                accepted = accept(&listener, &permits) => accepted,
            };
            let (stream, peer, permit) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let (serving, answer, cut) = (self.clone(), answer.clone(), cut.clone());
            connections.spawn(async move {
                tokio::select! {
                    () = cut.cancelled() => {}
                    () = serving.connection(stream, peer, answer) => {}
                }
                drop(permit);
            });
        }
        drop(listener);
        connections.close();
        if timeout(self.grace, connections.wait()).await.is_err() {
            tracing::warn!(
                connections = connections.len(),
                "the grace period is over; cutting connections"
            );
            cut.cancel();
            connections.wait().await;
        }
    }

    /// Serves what can be served the short way; what is left is hyper's.
    async fn front(&self, stream: TcpStream, peer: SocketAddr) -> Option<Rest<TcpStream>> {
        let Some((pipeline, times)) = &self.front else {
            let read = Bytes::new();
            return Some(Rest { stream, read });
        };
        front::serve(stream, (|| pipeline.clone(), peer), *times, &self.shutdown).await
    }

    async fn connection<A, F>(&self, stream: TcpStream, peer: SocketAddr, answer: A)
    where
        A: Fn(Request<Incoming>, SocketAddr) -> F,
        F: Future<Output = Response<ResponseBody>> + Send + 'static,
    {
        // A head and a body written apart must not wait for each other's acknowledgement.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%peer, %error, "TCP_NODELAY refused");
        }
        let Some(rest) = self.front(stream, peer).await else {
            return;
        };
        let (stream, queue) = ZeroCopyStream::new(rest.stream, rest.read);
        let waiting = stream.interim();
        let service = service_fn(|mut request: Request<Incoming>| {
            request.extensions_mut().insert(queue.clone());
            let interim = waiting.begin(request.version());
            if let Some(interim) = &interim {
                request.extensions_mut().insert(interim.clone());
            }
            let answering = answer(request, peer);
            async move {
                let response = answering.await;
                if let Some(interim) = interim {
                    interim.close();
                }
                Ok::<_, Infallible>(response)
            }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.header_timeout)
            .max_buf_size(HEAD_LIMIT)
            .half_close(true)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        tokio::pin!(connection);
        let served = tokio::select! {
            served = connection.as_mut() => served,
            () = self.shutdown.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.as_mut().await
            }
        };
        if let Err(error) = served {
            tracing::debug!(%peer, error = %Chain(&error), "connection ended");
        }
    }
}

async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    let permit = Arc::clone(permits)
        .acquire_owned()
        .await
        .map_err(io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    Ok((stream, peer, permit))
}
