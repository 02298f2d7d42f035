//! Verbs that need a store beside the `kato-proxy serve` that has it open: the server of a store listens in the store's folder, and does there
//! what only it can do.
//!
//! ```text
//! import     the server takes the bundle in, and serves the new snapshot before the old one goes
//! plan,      the server makes a view of its store, by links; the command opens that, and what it writes
//!   export   is the command's alone
//! prefetch   the server says where it listens, and is asked there as by any client
//! ```
//!
//! One connection is one order: a line of JSON there, lines of JSON back ([`Line`]), the last of which is the result. Who hangs up in the middle of an
//! import does not end it; the same order again waits for it and finds everything there. A view lasts as long as its connection. One order is carried out
//! at a time: an import that removes what no snapshot names must not do so while an export is about to name it.
//!
//! Invariant: the socket lies in the store's folder with mode 0600, so that whoever can give an order could have opened the store himself. Trust comes with
//! an order, as with the verb: who may write to a store decides whom it believes.
//!
//! Deliberately absent: a way in from the network, for just that reason.

mod client;
mod server;
mod socket;

use std::{net::SocketAddr, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::bundle::{import::Imported, ledger::Allowed};

pub use client::{Ask, Asked, Viewed};
pub use server::Beside;

/// The folder of a view, in the store's.
const VIEW: &str = "view";
/// The most bytes of an order or a line. A report of an import names what is missing.
const LONGEST: u64 = 1 << 30;

/// What the server of a store is asked to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// To say where it listens.
    Address,
    /// To make a view of the store.
    View,
    /// To take a bundle in.
    Import(Box<Taking>),
}

/// An import, with absolute paths.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Taking {
    /// The folder of the bundle.
    pub bundle: PathBuf,
    /// Further folders with volumes.
    pub others: Vec<PathBuf>,
    /// The public keys that are trusted, themselves.
    pub trust: Vec<String>,
    /// How many snapshots of the series are kept.
    pub keep: usize,
    /// What may come in that would be refused.
    pub allowed: Allowed,
}

/// What the server says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// Another order is carried out first.
    Waits,
    /// So many bytes have come, of so many.
    Progress {
        /// Those that are here.
        stored: u64,
        /// All of them.
        of: u64,
    },
    /// Where it listens.
    Listens {
        /// For clients.
        data: SocketAddr,
        /// Whether it asks no upstream.
        is_offline: bool,
    },
    /// A view is there, as long as the connection is.
    Viewed {
        /// Its folder.
        folder: PathBuf,
    },
    /// The bundle is in, or what of it there was.
    Imported(Box<Imported>),
    /// It was not done.
    Refused {
        /// With which code the verb ends.
        code: u8,
        /// Why, for people.
        message: String,
    },
}

#[cfg(test)]
mod tests;
