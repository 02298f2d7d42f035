//! Runs a plan on this node: journalled steps, and the events that tell of them.

pub mod event;
