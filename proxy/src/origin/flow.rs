//! Where the bytes of one response come from: from hyper, or, for a large body that is read as fast as it comes, from the socket
//! ([`bulk`](super::bulk)).

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Incoming};
use tokio::task::yield_now;

use super::{
    bulk::{Bulk, LEAST},
    error::BodyFault,
    lease::Lease,
};

/// The content of a response whose head has come.
#[derive(Debug)]
pub(super) enum Arriving {
    /// hyper reads it; with the connection, where that is not for others meanwhile.
    Hyper(Incoming, Option<Lease>),
    /// The rest of it comes past hyper.
    Bulk(Box<Bulk>),
    /// All of it.
    Here(Bytes),
}

impl Arriving {
    /// All of it, and the connection is for others again; `None` where that is more than `most` bytes, or breaks off.
    ///
    /// # Cancel safety
    /// Dropped early, the content is lost, and the connection with it.
    pub(super) async fn whole(self, most: usize) -> Option<Bytes> {
        match self {
            Self::Here(bytes) => Some(bytes).filter(|bytes| bytes.len() <= most),
            Self::Hyper(incoming, lease) => {
                let whole = Limited::new(incoming, most).collect().await.ok()?.to_bytes();
                lease.into_iter().for_each(Lease::give_back);
                Some(whole)
            }
            Self::Bulk(mut bulk) => {
                if bulk.left() > most as u64 {
                    return None;
                }
                let mut whole = BytesMut::new();
                while let Some(piece) = bulk.next(0).await.ok()? {
                    whole.extend_from_slice(&piece);
                }
                bulk.finish();
                Some(whole.freeze())
            }
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) enum Flow {
    Hyper(ByHyper),
    Bulk(Box<Bulk>),
    /// All of it is here.
    Here(Bytes),
    /// All was read.
    Ended,
    /// Nobody knows where the rest is: reading was given up half-way.
    Lost,
}

/// A body that hyper reads.
#[derive(Debug)]
pub(super) struct ByHyper {
    pub(super) incoming: Incoming,
    /// The connection, to be given back at the end of the body.
    pub(super) lease: Option<Lease>,
    /// Whether the origin lets the connection be used again.
    pub(super) may_be_kept: bool,
}

impl Flow {
    /// Bytes to come, where that is known.
    pub(super) fn length(&self) -> Option<u64> {
        match self {
            Self::Hyper(by_hyper) => by_hyper.incoming.size_hint().exact(),
            Self::Bulk(bulk) => Some(bulk.left()),
            Self::Here(bytes) => Some(bytes.len() as u64),
            Self::Ended | Self::Lost => None,
        }
    }

    /// Whether the rest is large, and is read past hyper after [`Self::go_in_bulk`].
    pub(super) fn may_go_in_bulk(&self) -> bool {
        let may_go = match self {
            Self::Hyper(by_hyper) => by_hyper.lease.as_ref().is_some_and(Lease::has_socket),
            Self::Bulk(_) => true,
            Self::Here(_) | Self::Ended | Self::Lost => false,
        };
        may_go && self.length().is_some_and(|length| length >= LEAST)
    }

    /// Has the rest read past hyper. Nothing of the body may have been read.
    ///
    /// # Cancel safety
    /// Dropped early, the body is lost.
    pub(super) async fn go_in_bulk(&mut self) {
        let Some(length) = self.length().filter(|_| self.may_go_in_bulk()) else {
            return;
        };
        if matches!(self, Self::Hyper(_))
            && let Self::Hyper(mut by_hyper) = std::mem::replace(self, Self::Lost)
            && let Some(lease) = by_hyper.lease.take()
        {
            let of = (length, by_hyper.may_be_kept);
            *self = match Bulk::take(&mut by_hyper.incoming, lease, of).await {
                Some(bulk) => Self::Bulk(Box::new(bulk)),
                None => Self::Hyper(by_hyper),
            };
        }
    }

    /// The next bytes, which belong at `position` of the whole; `None` at the end. Trailers are dropped: what is stored has none
    /// (RFC 9110 §6.5.1).
    ///
    /// # Errors
    /// [`BodyFault`].
    ///
    /// # Cancel safety
    /// Nothing is lost when dropped early.
    pub(super) async fn next(&mut self, position: u64) -> Result<Option<Bytes>, BodyFault> {
        let next = match self {
            Self::Hyper(by_hyper) => loop {
                match by_hyper.incoming.frame().await {
                    Some(frame) => {
                        if let Ok(bytes) = frame?.into_data() {
                            break Some(bytes);
                        }
                    }
                    None => break None,
                }
            },
            Self::Bulk(bulk) => match bulk.next(position).await {
                Ok(next) => next,
                Err(error) => {
                    // First what came goes to the clients: hyper drops it where it hears of the end in the same moment.
                    yield_now().await;
                    return Err(error.into());
                }
            },
            Self::Here(bytes) => Some(std::mem::take(bytes)).filter(|bytes| !bytes.is_empty()),
            Self::Ended => None,
            Self::Lost => return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into()),
        };
        if next.is_none() || self.is_at_end() {
            self.give_back();
        }
        Ok(next)
    }

    /// Gives the connection back, so that the next request may have it, if the end is known without reading on.
    pub(super) fn give_back_at_end(&mut self) {
        if self.is_at_end() {
            self.give_back();
        }
    }

    fn is_at_end(&self) -> bool {
        match self {
            Self::Hyper(by_hyper) => by_hyper.incoming.is_end_stream(),
            Self::Bulk(bulk) => bulk.is_at_end(),
            Self::Here(bytes) => bytes.is_empty(),
            Self::Ended => true,
            Self::Lost => false,
        }
    }

    fn give_back(&mut self) {
        match std::mem::replace(self, Self::Ended) {
            Self::Hyper(ByHyper {
                lease: Some(lease), ..
            }) => lease.give_back(),
            Self::Bulk(bulk) => bulk.finish(),
            Self::Hyper(_) | Self::Here(_) | Self::Ended | Self::Lost => {}
        }
    }
}
