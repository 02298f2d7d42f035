//! Bundles: a snapshot of a store on a medium, signed, for a site without a network.
//!
//! ```text
//! BUNDLE.json (signed) → SHA256SUMS, MEMBERS.jsonl, index.json, volumes → every byte
//!                      → root → chunks → entries → content
//! ```
//!
//! Flow out: `plan` (pure: which content, in which volume) → `export` (store → medium) → `sign`. Flow in: `medium` (signature, tables,
//! members) → `ledger` (pure: may it come in) → `stage` (medium → store) → `import` (closed? activate).
//!
//! Every bundle names a complete snapshot; a delta merely leaves out content that the site has. So bundles may be lost and come in any
//! order: what a site lacks is what its newest root names and its store does not have, and a request file says that to the exporter.
//!
//! The form is an OCI image layout, which other programs read; volumes are plain tars of the same files.
//!
//! Invariants:
//! * nothing of a bundle is parsed before its signature, or its digest in what was signed, was verified;
//! * a snapshot becomes active only when all that it names is stored and verified;
//! * replay is stopped by series and sequence, never by a clock.
//!
//! Deliberately absent: compression of payloads (they are compressed), trust on first use, writing to the medium of an import.

mod again;
mod copies;
mod error;
pub mod export;
mod finding;
pub mod header;
mod horizon;
pub mod host;
pub mod import;
mod importer;
pub mod ledger;
pub mod medium;
mod numbers;
mod oci;
pub mod pack;
pub mod plan;
pub mod prepare;
mod readme;
pub mod receipt;
mod satisfy;
mod seal;
pub mod sign;
mod stage;
pub mod tar;
pub mod verify;
mod volume;
mod write;

pub use error::BundleError;
pub use finding::{Fault, Finding};
pub use medium::Bundle;
pub use satisfy::Whole;

#[cfg(test)]
mod tests;
