//! Passwords in the order in which they came, client by client: of one address, one is under test at a time and few wait.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use tokio::sync::Semaphore;

/// Passwords of one client that are under test or wait. Container clients begin with a few requests at once that show the same.
const OF_ONE_CLIENT: usize = 8;
/// The most addresses before those are forgotten from which nothing waits any more.
const MANY: usize = 1024;

/// See the module. Clones are the same queues.
#[derive(Debug, Clone, Default)]
pub(super) struct Queues(Arc<Mutex<HashMap<IpAddr, Weak<Semaphore>>>>);

impl Queues {
    /// A place in the queue of `client`, held as long as the value is; `None` where that is long enough. Its one permit is the turn.
    pub(super) fn join(&self, client: IpAddr) -> Option<Arc<Semaphore>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = all.get(&client).and_then(Weak::upgrade) {
            // This place is one of them.
            return (Arc::strong_count(&queue) <= OF_ONE_CLIENT).then_some(queue);
        }
        if all.len() >= MANY {
            all.retain(|_, queue| queue.strong_count() > 0);
        }
        let queue = Arc::new(Semaphore::new(1));
        all.insert(client, Arc::downgrade(&queue));
        Some(queue)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn a_queue_that_is_full_is_that_of_one_client_and_empties() {
        let queues = Queues::default();
        let (one, other) = (Ipv4Addr::LOCALHOST.into(), Ipv4Addr::BROADCAST.into());
        let mut waiting: Vec<_> = (0..OF_ONE_CLIENT).map(|_| queues.join(one).unwrap()).collect();
        assert!(queues.join(one).is_none());
        assert!(queues.join(other).is_some());
        assert!(
            waiting[0]
                .try_acquire()
                .is_ok_and(|_turn| waiting[1].try_acquire().is_err())
        );
        waiting.pop();
        assert!(queues.join(one).is_some());
    }
}
