//! A throw-away cluster on this machine.

mod host;
mod outcome;
mod payload;
