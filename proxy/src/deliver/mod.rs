//! Bodies on their way to clients.
//!
//! A [`Payload`] says where the bytes are: in memory, in a file of the store, in a download under way, or in an origin response
//! that only this client gets. [`ResponseBody`] turns it into what hyper sends, counts it, and writes the access log when the
//! body ends or breaks.
//!
//! On connections without TLS, parts of files are sent by `sendfile(2)` (`zero_copy`): their bytes never enter this process.
//!
//! Invariant: a payload that cannot deliver all its bytes ends with an error, never early.

mod body;
mod framed;
mod handed;
mod payload;
mod record;
mod zero_copy;

pub use body::ResponseBody;
pub use framed::FramedBody;
pub use handed::Handed;
pub use payload::{BodyError, Payload, Piece, Span};
pub use record::Record;
pub(crate) use zero_copy::is_full;
pub use zero_copy::{SpanQueue, ZeroCopyStream};
