//! Patches: small signed changes of the installed release, installed and taken back by the engine of upgrades.
//!
//! A patch is a release document of the kind `patch`, so an [`Attempt`](crate::attempt::Attempt) is about one exactly as it is
//! about a release: everything is staged and verified first, each act is journalled, a failure is led back, a kill is resumed by
//! the same command. What differs is in this folder and behind [`act::PatchAct`]:
//!
//! | Module | What |
//! |---|---|
//! | [`act`] | what is done with a patch: install, install again, take back |
//! | [`record`] | which patches the node has; the commit point of every act |
//! | [`listed`] | the signed list as it was last seen |
//! | [`choice`] | pure: which patches are outstanding, may be installed, may be taken back; what a release demands |
//! | [`places`] | pure: which paths a patch changes, and the pristine state of files with patches in it |
//! | [`document`] | the document of an installed patch, kept for its way back |
//! | [`local`], [`cluster`] | the verbs on this node; on every node, from Core |
//! | [`status`] | what is said about all that |
//!
//! What a patch replaced is kept in `state/patches/kept/<name>` with the notes of the undo journal, until the patch is taken
//! back or a release takes its place. Taking back is therefore the engine's own way back, asked for by an operator.
//!
//! Deliberately absent: unsigned patches, and patches that change `kato` itself; that comes with a release.

pub mod act;
pub mod choice;
pub mod cluster;
pub mod document;
pub mod listed;
pub mod local;
pub mod places;
pub mod record;
pub mod status;
