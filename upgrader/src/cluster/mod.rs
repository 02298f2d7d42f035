//! The cluster from Core: who is in it.

pub mod inventory;
