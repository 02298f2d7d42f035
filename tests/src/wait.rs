//! Waiting for a state, with a deadline. The one place in the tests that sleeps.

use std::{thread, time::Duration};

use anyhow::{Result, bail};
use tokio::time::Instant;

/// Short beside what is waited for (a boot, a process), long beside one look.
const STEP: Duration = Duration::from_millis(20);

/// Looks until `look` finds something.
///
/// # Errors
/// When `deadline` has passed; `what` is named.
pub fn until<T>(what: &str, deadline: Duration, mut look: impl FnMut() -> Option<T>) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        if start.elapsed() >= deadline {
            bail!("{what}: not within {} s", deadline.as_secs());
        }
        thread::sleep(STEP);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_ends_the_wait_and_so_does_the_deadline() {
        let mut looks = 0;
        let found = until("third look", Duration::from_secs(10), || {
            looks += 1;
            (looks == 3).then_some(looks)
        });
        assert_eq!(found.unwrap(), 3);
        let late = until("never", Duration::ZERO, || None::<()>).unwrap_err();
        assert!(late.to_string().contains("never"), "{late}");
    }
}
