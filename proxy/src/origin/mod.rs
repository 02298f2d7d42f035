//! Requests to origins. The only folder that names reqwest.
//!
//! Flow: [`Origin::send`] tries the candidates of a request in order (the mirrors of an upstream), follows redirects, and
//! returns the response head and an [`OriginBody`]. A body that breaks off is taken up again where it stopped when its
//! validator allows ([`resume`]); the reader of the body does not notice. Interim responses (1xx) go to the client that
//! waits ([`connections`]).
//!
//! Rules: no automatic redirects (each hop is checked), no decompression (the representation is stored as it came), no
//! proxy from the environment, no cookies. Addresses are guarded ([`guard`]): loopback, link-local and metadata
//! addresses are contacted only where a configured upstream names them.
//!
//! An origin that did not answer a moment ago ([`breaker`]) is not waited for by requests that a stored response can answer.
//!
//! Deliberately absent: caching rules, and total time limits; only the lack of progress ends a transfer.

mod admin_call;
mod breaker;
mod connections;
mod error;
mod guard;
mod resume;
mod send;

pub use admin_call::{AdminAddress, AdminFailure, admin_call};
pub use error::{ErrorKind, OriginError};
pub use resume::OriginBody;
pub use send::{Origin, OriginRequest, OriginResponse};
