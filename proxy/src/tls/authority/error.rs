//! What can be wrong with an authority.

use std::{io, path::PathBuf};

use jiff::Timestamp;
use kato_shared::durable::DurableError;

/// Why there is no authority, or no certificate of it.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file of it cannot be read.
    #[error(
        "`{}` cannot be read\nhint: it belongs to the user that kato-proxy runs as; `kato-proxy ca init` as that user makes what is missing",
        path.display()
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file of it cannot be written.
    #[error(
        "the local authority cannot be written\nhint: make the folder writable for this user, or name another as ca_dir in the section [tls]"
    )]
    Write(#[from] DurableError),
    /// The record is not one.
    #[error("`{}` is no record of a local authority", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// A later program wrote it.
    #[error(
        "`{}` has schema {found}: expected at most {expected}\nhint: use the version of kato-proxy that wrote it, or a later one",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// What it says.
        found: u32,
        /// The latest that is known here.
        expected: u32,
    },
    /// Others than the owner can get at the key.
    #[error(
        "the private key `{}` has mode {mode:03o}: expected 600\nhint: if nobody else has read it: chmod 600; else `kato-proxy ca rotate` and trust the new authority alone",
        path.display()
    )]
    Exposed {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The constraints name fewer hosts than the settings.
    #[error(
        "the local authority may not sign for {missing}: its constraints name {covered}\nhint: `kato-proxy ca rotate` makes one that may; clients keep working for the hosts of the old one, and have to trust the new one for the others"
    )]
    Uncovered {
        /// Hosts that it may not sign for.
        missing: String,
        /// Hosts that it may sign for.
        covered: String,
    },
    /// Nothing is to be opened.
    #[error(
        "no upstream has intercept = true, so a local authority could sign for nothing\nhint: set it for the upstreams that CONNECT is to be opened for"
    )]
    NoHosts,
    /// Its time is over.
    #[error(
        "the local authority was valid until {until}\nhint: `kato-proxy ca rotate`, and have the clients trust the new one"
    )]
    Over {
        /// When it ended.
        until: Timestamp,
    },
    /// It is there already.
    #[error("there is a local authority in `{}` already\nhint: `kato-proxy ca show` shows it, `kato-proxy ca rotate` replaces it", folder.display())]
    Exists {
        /// Where.
        folder: PathBuf,
    },
    /// There is none.
    #[error("there is no local authority in `{}`\nhint: `kato-proxy ca init` makes one", folder.display())]
    Absent {
        /// Where.
        folder: PathBuf,
    },
    /// A certificate could not be made, or a key not used.
    #[error("{what} could not be made")]
    Mint {
        /// What.
        what: &'static str,
        /// Why.
        #[source]
        source: rcgen::Error,
    },
    /// What was made cannot be used for TLS.
    #[error("no TLS with the certificate for {host}")]
    Tls {
        /// The host.
        host: String,
        /// Why.
        #[source]
        source: rustls::Error,
    },
}
