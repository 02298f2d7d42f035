//! A transport that remembers when a newer root could not be fetched.
//!
//! `tough` takes every failure of `<N+1>.root.json` for "there is none" and goes on with the root it has. A broken
//! line would then look like a bad signature, and an attacker could hide a root by resetting connections. Here only
//! an answer that says "not found" means that there is none; after any other failure nothing more is fetched.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tough::{Transport, TransportError, TransportErrorKind, TransportStream};
use url::Url;

/// Wraps a transport; clones share the memory.
#[derive(Debug, Clone)]
pub(super) struct Watched {
    inner: Arc<dyn Transport>,
    root_failure: Arc<Mutex<Option<TransportError>>>,
}

impl Watched {
    pub(super) fn new(inner: impl Transport + 'static) -> Self {
        Self {
            inner: Arc::new(inner),
            root_failure: Arc::default(),
        }
    }

    /// The failure to fetch a root for another reason than its absence, once.
    pub(super) fn root_failure(&self) -> Option<TransportError> {
        self.root_failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    fn has_failed(&self) -> bool {
        self.root_failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some()
    }
}

#[async_trait]
impl Transport for Watched {
    async fn fetch(&self, url: Url) -> Result<TransportStream, TransportError> {
        if self.has_failed() {
            return Err(TransportError::new(TransportErrorKind::Other, url));
        }
        let is_root = url.path().ends_with(".root.json");
        match self.inner.fetch(url).await {
            Err(error) if is_root && error.kind() != TransportErrorKind::FileNotFound => {
                let forwarded = TransportError::new(error.kind(), error.url());
                *self.root_failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                Err(forwarded)
            }
            result => result,
        }
    }
}
