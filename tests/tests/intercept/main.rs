//! CONNECT as real clients use it: opened for one upstream, tunnelled for another, by curl, openssl and apt against the real program.
//!
//! | Module | What is held against the program |
//! |---|---|
//! | `opened` | what goes through an opened CONNECT is stored, and found by every other door |
//! | `refused` | what is not about the host of the CONNECT, is no TLS, or does not trust us |
//! | `authority` | the local authority: constraints, key, rotation, settings read again |
//! | `debian` | apt with https sources |
//!
//! The origin speaks TLS under two names: `localhost`, which is opened, and 127.0.0.1, which is tunnelled.

mod authority;
mod debian;
mod opened;
mod refused;
mod site;
