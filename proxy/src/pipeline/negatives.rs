//! Stored answers that say "there is nothing" (404, 410, …): bounded in number, so that whoever asks for names at random
//! cannot fill the store with them.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use kato_shared::chain::Chain;

use super::Pipeline;

/// The keys under which the last such answers are stored.
#[derive(Debug, Default)]
pub(super) struct Negatives(Mutex<VecDeque<String>>);

impl Negatives {
    /// The most that are kept.
    const MOST: usize = 4096;

    /// Notes one more; the key of the oldest when there are too many.
    fn note(&self, key: &str) -> Option<String> {
        let mut keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        keys.push_back(key.to_owned());
        (keys.len() > Self::MOST).then(|| keys.pop_front())?
    }
}

impl Pipeline {
    /// Notes that such an answer is stored under `key`, and forgets the oldest when there are too many.
    pub(super) async fn bound_negatives(&self, key: &str) {
        let Some(oldest) = self.0.fills.negatives.note(key) else {
            return;
        };
        let entry = self.0.store.lookup(&oldest).await;
        // It may be there by now, or have been noted again since.
        let is_nothing = |status: http::StatusCode| status.is_client_error() || status.is_server_error();
        if oldest != key
            && entry.heads().iter().all(|head| is_nothing(head.status))
            && let Err(error) = self.0.store.remove(vec![oldest]).await
        {
            tracing::warn!(error = %Chain(&error), "an old negative answer could not be forgotten");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes_when_there_are_too_many() {
        let negatives = Negatives::default();
        for nth in 0..Negatives::MOST {
            assert_eq!(negatives.note(&nth.to_string()), None);
        }
        assert_eq!(negatives.note("one more").as_deref(), Some("0"));
    }
}
