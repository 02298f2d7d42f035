//! How many requests are answered at once: of everybody, and of one client.
//!
//! A request beyond the bounds waits for a short time and is then refused with 503 and `Retry-After`: a client that is told to come again
//! is better off than one that waits in a queue without end, and so is everybody who would stand behind it. A request is in flight
//! until the last byte of its answer is handed over.
//!
//! Invariant: what is counted is released when the answer is dropped, however it ends.

use std::{net::IpAddr, time::Duration};

use tokio::time::timeout;

use crate::{
    per_client::{PerClient, Place},
    permits::{Permit, Permits},
    settings::Limits,
};

/// Requests in flight; clones count together.
#[derive(Debug, Clone)]
pub(crate) struct Admission {
    all: Permits,
    clients: PerClient,
}

/// The right to be answered.
#[derive(Debug)]
pub struct Slot {
    _of_client: Place,
    _permit: Permit,
}

/// Which bound a request is beyond.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Overload {
    /// `limits.requests`.
    #[error("too many requests are being answered")]
    All,
    /// `limits.requests_per_client`.
    #[error("too many requests of this client are being answered")]
    Client,
}

impl Admission {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            all: Permits::new(limits.requests),
            clients: PerClient::default(),
        }
    }

    /// Takes over changed bounds.
    pub(crate) fn resize(&self, limits: &Limits) {
        self.all.resize(limits.requests);
    }

    /// A place for a request of `client`, for which it may wait.
    pub(crate) async fn admit(&self, client: IpAddr, limits: &Limits) -> Result<Slot, Overload> {
        let of_client = self.clients.take(client, limits.requests_per_client);
        let of_client = of_client.ok_or(Overload::Client)?;
        let taken = match self.all.try_take() {
            Some(permit) => Some(permit),
            None => self.wait(limits.queue_wait.get()).await,
        };
        Ok(Slot {
            _of_client: of_client,
            _permit: taken.ok_or(Overload::All)?,
        })
    }

    /// A place for a request of `client`, if there is one now.
    pub(crate) fn try_admit(&self, client: IpAddr, limits: &Limits) -> Option<Slot> {
        Some(Slot {
            _of_client: self.clients.take(client, limits.requests_per_client)?,
            _permit: self.all.try_take()?,
        })
    }

    async fn wait(&self, patience: Duration) -> Option<Permit> {
        timeout(patience, self.all.take()).await.ok().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(requests: u32, requests_per_client: u32) -> Limits {
        Limits {
            requests,
            requests_per_client,
            queue_wait: "20ms".parse().unwrap(),
            ..Limits::default()
        }
    }

    #[tokio::test]
    async fn a_request_beyond_a_bound_is_refused_after_a_while_and_places_come_back() {
        let (one, other) = ([127, 0, 0, 1].into(), [127, 0, 0, 2].into());
        let limits = limits(3, 2);
        let admission = Admission::new(&limits);
        let first = admission.admit(one, &limits).await.unwrap();
        let _second = admission.admit(one, &limits).await.unwrap();
        assert_eq!(admission.admit(one, &limits).await.unwrap_err(), Overload::Client);
        let third = admission.admit(other, &limits).await.unwrap();
        assert_eq!(admission.admit(other, &limits).await.unwrap_err(), Overload::All);
        drop(first);
        let again = admission.admit(other, &limits).await.unwrap();
        drop(again);
        drop(third);
        assert_eq!(admission.clients.len(), 1, "a refused one is not counted");
    }

    #[tokio::test]
    async fn nothing_is_kept_of_clients_that_are_gone() {
        let limits = limits(3, 2);
        let admission = Admission::new(&limits);
        drop(admission.admit([127, 0, 0, 1].into(), &limits).await.unwrap());
        assert_eq!(admission.clients.len(), 0);
    }
}
