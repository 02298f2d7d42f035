//! What the integration tests stand on.
//!
//! | Module | Gives |
//! |---|---|
//! | [`lab`] | a cluster of machines on this machine: namespaces, own roots, own sshd |
//! | [`cutter`] | a relay that breaks the n-th request, in a way that is asked for |
//! | [`authority`] | certificates for servers, by an authority of the test's own |
//! | [`archive`] | a signed Debian archive for an origin, and apt with settings of its own |
//! | [`command`] | child processes with a deadline and their whole output |
//! | [`binaries`] | the programs that this workspace builds |
//! | [`faulty`] | a file system with I/O errors, by FUSE |
//! | [`image`] | a container image for two architectures, made of real archives |
//! | [`names`] | names for servers on loopback, as a parent proxy knows them |
//! | [`node`] | a node below a folder, and `kato` run on it |
//! | [`origin`] | an origin server that counts what it is asked for and misbehaves as told |
//! | [`client`] | an HTTP client that can tell a whole body from one that broke off |
//! | [`proxy`] | the built `kato-proxy` as a child process |
//! | [`published`] | small packages of languages, as their indexes publish them |
//! | [`tls_front`] | TLS before a server that speaks none |
//! | [`toxics`] | a bad network between two programs, by a seed |
//! | [`registry`] | a real container registry on loopback, and tokens that it believes |
//! | [`releases`] | small signed repositories of releases, made in milliseconds |
//! | [`static_server`] | an upgrade host: static files, counted, with faults to switch on |
//! | [`wait`] | waiting for a state, with a deadline |
//!
//! Areas stand in `tests/<area>/main.rs`, one binary each. Tests that need root stand in a module `as_root`; `cargo xtask test` lists
//! them as skipped where root is missing.
//!
//! Deliberately absent: mocks of our own programs. What is tested here are the real binaries.

pub mod archive;
pub mod authority;
pub mod binaries;
pub mod client;
pub mod command;
pub mod cutter;
pub mod faulty;
pub mod image;
pub mod lab;
pub mod names;
pub mod node;
pub mod origin;
pub mod presets;
pub mod proxy;
pub mod published;
pub mod registry;
pub mod releases;
pub mod runtime;
pub mod static_server;
pub mod tls_front;
pub mod toxics;
pub mod wait;
