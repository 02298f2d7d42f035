//! CONNECT as real clients use it: opened for one upstream, tunnelled for another, by curl, openssl, apt, pip, npm and cargo against the real program.
//!
//! | Module | What is held against the program |
//! |---|---|
//! | `opened` | what goes through an opened CONNECT is stored, and found by every other door |
//! | `refused` | what is not about the host of the CONNECT, is no TLS, or does not trust us |
//! | `authority` | the local authority: constraints, key, rotation, settings read again |
//! | `guarded` | names that lead to an address that is not allowed |
//! | `debian` | apt with https sources |
//! | `languages` | pip, npm and cargo with an index and files behind https |
//!
//! The origin speaks TLS under two names: `localhost`, which is opened, and 127.0.0.1, which is tunnelled. That of `languages` has names of
//! its own, which a parent proxy knows.

mod authority;
mod debian;
mod guarded;
mod languages;
mod opened;
mod refused;
mod site;
