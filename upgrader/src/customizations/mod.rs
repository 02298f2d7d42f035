//! Local changes: what somebody changed on this node, what an upgrade does to it, and how it comes back.
//!
//! Flow of `scan`: the record of the installed release ([`crate::installed`]) has the pristine state of every file → [`mod@scan`]
//! compares the node with it → a [`Change`] for each difference, by [`Class`]. [`outlook`] says before an upgrade what becomes of
//! each. [`archive`] keeps what is taken away; [`reapply`] puts it back onto the new release, [`difference`] shows it as text.
//!
//! What a changed file *was* is read from the kept archives of the installed release ([`pristine`]): the record has digests, not
//! content. The conflict rule `merge` of overlays reads there as well, and shares [`text`] with `reapply`.
//!
//! Deliberately absent: history of changes (this is no version control; an archive is a copy with digests), and merging of
//! anything but text.
//!
//! Invariants: a file that is neither pristine nor of the release is never overwritten before a copy of it is durable; nothing
//! here changes the product but [`reapply`]; only the owner can look into an archive.

pub mod archive;
pub mod change;
pub mod difference;
mod error;
pub mod outlook;
pub mod pristine;
pub mod reapply;
pub mod safe;
pub mod scan;
pub mod text;

#[cfg(test)]
mod tests;

pub use self::{
    change::{Change, Class, Fate, What},
    error::CustomizationError,
    scan::{Scan, patched, scan},
};
