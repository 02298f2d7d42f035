//! A deadline that is moved for every request and nearly never comes.
//!
//! Moving a timer costs more than the rest of a wait, so the timer stays where it is: when it fires too early it goes on to
//! the deadline as it is by then.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::time::{Instant, Sleep, sleep_until};

#[derive(Debug)]
pub(super) struct Patience {
    deadline: Instant,
    timer: Pin<Box<Sleep>>,
}

impl Patience {
    pub(super) fn until(deadline: Instant) -> Self {
        Self {
            deadline,
            timer: Box::pin(sleep_until(deadline)),
        }
    }

    /// From now on the deadline is this.
    pub(super) fn move_to(&mut self, deadline: Instant) {
        self.deadline = deadline;
        if deadline < self.timer.deadline() {
            self.timer.as_mut().reset(deadline);
        }
    }

    /// Ready when the deadline has come.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.timer.as_mut().poll(cx));
            if Instant::now() >= self.deadline {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(self.deadline);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, time::Duration};

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn it_ends_at_the_last_deadline_that_was_set_sooner_or_later_than_the_first() {
        let begin = Instant::now();
        let after = |millis| begin + Duration::from_millis(millis);
        let mut patience = Patience::until(after(10));
        patience.move_to(after(60));
        poll_fn(|cx| patience.poll(cx)).await;
        assert!(Instant::now() >= after(60));
        patience.move_to(after(600_000));
        patience.move_to(after(80));
        let ended = timeout(Duration::from_secs(60), poll_fn(|cx| patience.poll(cx))).await;
        assert!(ended.is_ok() && Instant::now() >= after(80));
    }
}
