//! The upgrade of one node: the built `kato`, a signed repository on a web server, a root in a folder, a platform of files.

mod alone;
mod amid;
mod audit;
mod begun;
mod customizations;
mod damage;
mod failure;
mod hook;
mod hops;
mod images;
mod latches;
mod locks;
mod lost;
mod network;
mod notify;
mod packages;
mod policies;
mod question;
mod restart;
mod rollback;
mod service;
mod setup;
mod space;
mod stopped;
mod way;
mod whole;
