//! `kato`: upgrades its node, and from Core the whole cluster.
//!
//! Flow: facts → plan (pure) → engine of journalled steps → platform adapter. `cluster` runs the same node engine on
//! every node over SSH and follows its event stream.
//!
//! Deliberately absent: a daemon, a database, and any way to switch off a signature or digest check.

pub mod cli;
pub mod cluster;
pub mod exit;
pub mod fetch;
pub mod paths;
pub mod plan;
pub mod publish;
pub mod report;
pub mod run;
pub mod settings;
pub mod ssh;
