//! `kato`: upgrades its node, and from Core the whole cluster.
//!
//! Flow: facts → plan (pure) → engine of journalled steps → platform adapter. `cluster` runs the same node engine on
//! every node over SSH and follows its event stream.
//!
//! Deliberately absent: a daemon, a database, and any way to switch off a signature or digest check.

pub mod attempt;
pub mod audit;
pub mod backup;
pub mod cli;
pub mod cluster;
pub mod customizations;
pub mod demo;
pub mod document;
pub mod exit;
pub mod failpoint;
pub mod fetch;
pub mod installed;
pub mod journal;
pub mod jsonl;
pub mod latch;
pub mod lease;
pub mod licence;
pub mod lock;
pub mod maintenance;
pub mod marker;
pub mod module;
pub mod notify;
pub mod ownership;
pub mod patch;
pub mod path_text;
pub mod paths;
pub mod plan;
pub mod platform;
pub mod prepare;
pub mod publish;
pub mod quarantine;
pub mod recover;
pub mod report;
pub mod restore;
pub mod resume;
pub mod run;
pub mod self_update;
pub mod settings;
pub mod source;
pub mod space;
pub mod ssh;
