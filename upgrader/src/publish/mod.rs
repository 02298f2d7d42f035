//! Publishing: from a folder of modules to a TUF repository of static files that any web server can serve.
//!
//! Flow, each step a command and a function, each may run on another machine:
//! 1. [`init()`] makes keys and the root metadata of a new repository (all keys);
//! 2. [`build()`] turns a description (`release.toml` and module folders) into archives and `release.json` (no key);
//! 3. [`sign()`] adds them to the list of targets (the targets key);
//! 4. [`publish`] puts files and metadata into the repository (the snapshot and timestamp keys);
//! 5. [`refresh`] renews snapshot and timestamp before they expire (the same keys);
//! 6. [`verify()`] looks at the result as a node would (no key).
//!
//! A *build folder* travels between the steps: `targets/<target name>` and, once signed, `targets.json`.
//!
//! Invariants: a published file is never changed or removed; a web server that serves the repository during a
//! publication serves either the old state or the new one, because every file has its digest or version in its name
//! and `timestamp.json`, the only one that is replaced, comes last.
//!
//! Deliberately absent: delegated roles, root rotation, uploading, and a key store: keys are files, made for
//! development. All file work is synchronous; nothing else runs in these commands.

mod archive;
mod build;
mod description;
mod error;
mod files;
mod init;
mod keys;
mod metadata;
mod patches;
mod publication;
mod sign;
mod state;
mod verify;

pub use build::{BuildOptions, Built, UpgraderFile, build};
pub use error::PublishError;
pub use init::{InitOptions, Initialized, init};
pub use metadata::Lifetimes;
pub use publication::{Published, publish, refresh};
pub use sign::{Signed, sign};
pub use verify::{Verified, verify};
