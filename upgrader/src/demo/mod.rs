//! A throw-away cluster on this machine.

mod host;
