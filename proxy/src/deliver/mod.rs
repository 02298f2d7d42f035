//! Bodies on their way to clients.
//!
//! A [`Payload`] says where the bytes are: in memory, in a file of the store, in a download under way, or in an origin response
//! that only this client gets. [`ResponseBody`] turns it into what hyper sends, counts it, and writes the access log when the
//! body ends or breaks.
//!
//! Invariant: a payload that cannot deliver all its bytes ends with an error, never early.

mod body;
mod payload;
mod record;

pub use body::ResponseBody;
pub use payload::{BodyError, Payload, Span};
pub use record::Record;
