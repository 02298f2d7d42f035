//! Package managers of languages through the cache, with the real clients: pip, npm and cargo, each with a small package that the test
//! makes and an index of its own.
//!
//! Each test installs twice, the second time with a client that remembers nothing and with the origins gone: what a client needs is
//! in the store, and everything was asked through us.

mod check;
mod doctor;
mod node;
mod odd;
mod private;
mod python;
mod refusals;
mod rust;
mod setup;
mod shared;
mod site;
mod views;
