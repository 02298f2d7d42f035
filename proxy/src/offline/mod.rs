//! A cache that never asks an origin: which snapshot it serves, what it notes about requests that it could not answer, and how that comes
//! back as content.
//!
//! ```text
//! serve --offline   a snapshot is served                                     (served)
//!                   a miss is answered at once, and noted                    (misses)
//! request           the notes become a document that crosses the gap        (snapshot::Wanted)
//! prefetch          on the connected side reads it, and fetches what it says
//! ```
//!
//! Deliberately absent: the decision what is a miss (`policy/disconnected`), and the answer (`pipeline/offline`).
//!
//! Invariants:
//! * no note holds a secret of a client: no field but `Accept`, no user information, no URL that must not cross (`snapshot::judge`);
//! * notes are bounded in number and bytes, so that whoever asks for names at random fills no disk.

mod misses;
mod served;

pub use misses::{MISSES_FILE, Miss, Misses, Noted, Unnoted, read_misses};
pub use served::{ServeError, Served, Serving};
