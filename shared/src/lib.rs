//! What both programs agree on: digests, release documents, trust, settings, and the small disciplines
//! (durable writes, clocks, back-off, error chains) that would otherwise be written twice.
//!
//! `kato` and `kato-proxy` meet only over HTTP; the types they exchange are in [`api`].
//!
//! Deliberately absent: any HTTP client or server, the cache store, and every decision of one program alone.

pub mod api;
pub mod backoff;
pub mod chain;
pub mod clock;
pub mod counted;
pub mod digest;
pub mod durable;
pub mod redact;
pub mod release;
pub mod secret;
pub mod settings;
pub mod shutdown;
pub mod telemetry;
pub mod trust;
pub mod verify;

pub use counted::counted;
pub use digest::Digest;
