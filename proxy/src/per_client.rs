//! How many things of one kind each client has at once: requests, connections.
//!
//! A client is an address. Nothing is kept of clients that have nothing.
//!
//! Invariant: what is counted is released when its [`Place`] is dropped.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::quick_map::QuickMap;

/// Counts by client; clones count together.
#[derive(Debug, Clone, Default)]
pub(crate) struct PerClient(Arc<Mutex<QuickMap<IpAddr, u32>>>);

/// One of the things that a client has.
#[derive(Debug)]
pub(crate) struct Place {
    client: IpAddr,
    of: PerClient,
}

impl PerClient {
    /// A place for one more of `client`, unless it has `most` already.
    pub(crate) fn take(&self, client: IpAddr, most: u32) -> Option<Place> {
        let mut counts = self.counts();
        let count = counts.entry(client).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Place {
            client,
            of: self.clone(),
        })
    }

    /// Clients that have something now.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.counts().len()
    }

    fn counts(&self) -> MutexGuard<'_, QuickMap<IpAddr, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.of.counts();
        if let Some(count) = counts.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.client);
            }
        }
    }
}
