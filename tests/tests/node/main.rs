//! The upgrade of one node: the built `kato`, a signed repository on a web server, a root in a folder, a platform of files.

mod failure;
mod latches;
mod network;
mod service;
mod setup;
mod space;
mod whole;
