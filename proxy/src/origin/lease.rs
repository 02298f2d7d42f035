//! The right to one of an origin's bounded connections (see `pool`), with hyper's connection or without it.

use std::{fmt, sync::Arc};

use tokio::{
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
};

use super::{
    open::{Http1, Socket},
    plain::Plain,
    pool::{Destination, Kept},
};

/// The right to a connection until the body that it carries was read.
pub(super) struct Lease {
    pub(super) destination: Arc<Destination>,
    pub(super) connection: Http1,
    pub(super) permit: OwnedSemaphorePermit,
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").finish_non_exhaustive()
    }
}

impl Lease {
    /// The body was read to its end: the next request may use the connection.
    pub(super) fn give_back(self) {
        self.destination.keep(Kept::Hyper(self.connection), self.permit);
    }

    /// Whether the body can be read past hyper.
    pub(super) fn has_socket(&self) -> bool {
        self.connection.socket.is_some()
    }

    /// Takes the connection out of hyper, in the middle of a body. What hyper has handed to the body stays there; `None` when the
    /// connection has ended.
    ///
    /// # Cancel safety
    /// Dropped early, the connection is lost.
    pub(super) async fn into_socket(self) -> Option<(Socket, Place)> {
        let (reply, socket) = oneshot::channel();
        self.connection.socket?.send(reply).ok()?;
        let place = Place {
            destination: self.destination,
            permit: self.permit,
        };
        Some((socket.await.ok()?, place))
    }
}

/// The right to a connection that hyper does not have.
pub(super) struct Place {
    pub(super) destination: Arc<Destination>,
    pub(super) permit: OwnedSemaphorePermit,
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place").finish_non_exhaustive()
    }
}

impl Place {
    /// Who has one of these may read in wide pieces.
    pub(super) fn wide_pieces(&self) -> Arc<Semaphore> {
        Arc::clone(self.destination.wide_pieces())
    }

    /// The body was read to its end: the next request may use the connection.
    pub(super) fn give_back(self, stream: TcpStream) {
        self.destination
            .keep(Kept::Plain(Plain::new(stream)), self.permit);
    }
}
