//! Releases: what a release document says, whether this build understands it, and how to get from one to another.
//!
//! A release document is a signed TUF target (`releases/<version>/release.json`). [`document`] has its shape,
//! [`install`] what its policies name, [`read`] its checks, [`graph`] the ways between versions, [`patch`] what makes a
//! document a patch, [`layout`] the names of the targets.
//!
//! Deliberately absent: fetching (the caller's transport) and trust ([`crate::trust`]).

pub mod document;
pub mod graph;
pub mod install;
pub mod layout;
pub mod patch;
mod read;

pub use document::{
    Artifact, Check, FileEntry, Install, Module, Notice, NoticeWhen, OnConflict, Release, RestartScope,
    Sources, Upgrader,
};
pub use graph::{Graph, GraphEntry, HopError};
pub use install::{Image, Package};
pub use patch::{Kind, Patch, PatchEntry, PatchList, Severity};
pub use read::{ReadError, UnknownName};
pub use semver::Version;

/// The newest schema of `release.json` and `graph.json` that this build reads and writes.
pub const SCHEMA: u32 = 1;
