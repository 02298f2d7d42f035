//! HTTP to others.

pub mod probe;
