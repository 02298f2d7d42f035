//! The upgrade of one node: the built `kato`, a signed repository on a web server, a root in a folder, a platform of files.

mod audit;
mod failure;
mod hook;
mod hops;
mod latches;
mod locks;
mod network;
mod notify;
mod restart;
mod rollback;
mod service;
mod setup;
mod space;
mod whole;
