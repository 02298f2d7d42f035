//! How many of something may be under way at once; the number can change meanwhile.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Permits; clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Permits(Arc<Pool>);

#[derive(Debug)]
struct Pool {
    semaphore: Arc<Semaphore>,
    /// Permits in circulation, those to be withdrawn included.
    total: AtomicUsize,
    /// Permits to withdraw when they come back.
    surplus: AtomicUsize,
}

/// The right to do one of them.
#[derive(Debug)]
pub(crate) struct Permit {
    pool: Arc<Pool>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Permits {
    pub(crate) fn new(most: u32) -> Self {
        let total = count(most);
        Self(Arc::new(Pool {
            semaphore: Arc::new(Semaphore::new(total)),
            total: AtomicUsize::new(total),
            surplus: AtomicUsize::new(0),
        }))
    }

    /// Waits for a permit. `None` never happens while permits are: nobody closes the pool.
    pub(crate) async fn take(&self) -> Option<Permit> {
        let permit = Arc::clone(&self.0.semaphore).acquire_owned().await.ok()?;
        Some(Permit {
            pool: Arc::clone(&self.0),
            permit: Some(permit),
        })
    }

    /// A permit, if there is one and nobody waits for it.
    pub(crate) fn try_take(&self) -> Option<Permit> {
        let permit = Arc::clone(&self.0.semaphore).try_acquire_owned().ok()?;
        Some(Permit {
            pool: Arc::clone(&self.0),
            permit: Some(permit),
        })
    }

    /// Changes the number. Fewer than are in use: what is under way goes on, and its permits are withdrawn as they come back.
    /// Each pool has one caller, so that two changes do not cross.
    pub(crate) fn resize(&self, most: u32) {
        let pool = &*self.0;
        let wanted = count(most);
        let in_force = pool.total.load(Ordering::Acquire) - pool.surplus.load(Ordering::Acquire);
        if wanted >= in_force {
            let mut missing = wanted - in_force;
            // First those that were to be withdrawn.
            while missing > 0 && pool.take_surplus() {
                missing -= 1;
            }
            pool.total.fetch_add(missing, Ordering::AcqRel);
            pool.semaphore.add_permits(missing);
        } else {
            let free = pool.semaphore.forget_permits(in_force - wanted);
            pool.total.fetch_sub(free, Ordering::AcqRel);
            pool.surplus.fetch_add(in_force - wanted - free, Ordering::AcqRel);
        }
    }
}

impl Pool {
    fn take_surplus(&self) -> bool {
        self.surplus
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |surplus| {
                surplus.checked_sub(1)
            })
            .is_ok()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take()
            && self.pool.take_surplus()
        {
            self.pool.total.fetch_sub(1, Ordering::AcqRel);
            permit.forget();
        }
    }
}

fn count(most: u32) -> usize {
    usize::try_from(most).map_or(Semaphore::MAX_PERMITS, |count| count.min(Semaphore::MAX_PERMITS))
}

#[cfg(test)]
mod tests {
    use tokio_util::task::TaskTracker;

    use super::*;

    fn free(permits: &Permits) -> usize {
        permits.0.semaphore.available_permits()
    }

    #[tokio::test]
    async fn fewer_permits_are_withdrawn_as_they_come_back() {
        let permits = Permits::new(3);
        let mut used = Vec::new();
        for _ in 0..3 {
            used.push(permits.take().await.unwrap());
        }
        permits.resize(1);
        used.pop();
        used.pop();
        assert_eq!(free(&permits), 0, "one is still in use, and one is allowed");
        used.pop();
        assert_eq!(free(&permits), 1);
        permits.resize(4);
        assert_eq!(free(&permits), 4);
    }

    #[tokio::test]
    async fn what_was_to_be_withdrawn_is_kept_when_more_are_allowed_again() {
        let permits = Permits::new(2);
        let used = [permits.take().await.unwrap(), permits.take().await.unwrap()];
        permits.resize(1);
        permits.resize(3);
        assert_eq!(free(&permits), 1);
        drop(used);
        assert_eq!(free(&permits), 3);
    }

    #[tokio::test]
    async fn who_waits_for_a_permit_gets_one_of_the_new() {
        let permits = Permits::new(1);
        let _used = permits.take().await.unwrap();
        let tasks = TaskTracker::new();
        let waiting = permits.clone();
        let waiter = tasks.spawn(async move { waiting.take().await.is_some() });
        permits.resize(2);
        assert!(waiter.await.unwrap());
    }
}
