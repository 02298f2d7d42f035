//! The cluster from Core: who is in it.

pub mod drive;
pub mod event;
pub mod facts;
pub mod inventory;
pub mod remote;
pub mod rollout;
