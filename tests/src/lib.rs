//! What the integration tests stand on.
//!
//! | Module | Gives |
//! |---|---|
//! | [`origin`] | an origin server that counts what it is asked for and misbehaves as told |
//! | [`client`] | an HTTP client that can tell a whole body from one that broke off |
//! | [`proxy`] | the built `kato-proxy` as a child process |
//!
//! Deliberately absent: mocks of our own programs. What is tested here are the real binaries.

pub mod client;
pub mod origin;
pub mod proxy;
