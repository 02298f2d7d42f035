//! Runs an upgrade on this node: journalled steps, and the events that tell of them.
//!
//! Flow: [`upgrade`] takes the lock, chooses the release, makes the plan, asks → [`engine`] takes the [`steps`] → the run's
//! last event. The state that decides what is left to do is on the node, so that the same command after a kill goes on.

pub mod back;
mod beside;
pub mod by_hand;
pub mod context;
pub mod cordon;
pub mod detach;
mod ending;
pub mod engine;
pub mod event;
mod failure;
pub mod follow;
pub mod goal;
mod kept;
mod look;
mod lost;
pub(crate) mod orphans;
pub mod patience;
pub mod remedy;
pub(crate) mod room;
mod session;
pub mod status;
pub mod step;
pub mod steps;
pub mod stop;
pub mod stream;
pub mod survey;
pub(crate) mod taken_up;
pub mod upgrade;

pub use context::{Node, Run};
