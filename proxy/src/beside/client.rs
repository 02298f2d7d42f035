//! The side of the verb.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::SocketAddr,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{LONGEST, Line, Order, Taking, socket};
use crate::{bundle::import::Imported, exit};

/// The server says something every second while it works.
const SILENCE: Duration = Duration::from_secs(60);

/// Why the server of a store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Asked {
    /// Nobody listens in the store's folder.
    #[error(
        "another process has the store in `{store}` open, and does not listen there\nhint: if it is another command, wait until it ends; if it is kato-proxy serve, run this as the user of the proxy"
    )]
    Nobody {
        /// The store's folder.
        store: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The connection ended too early.
    #[error(
        "the server of the store in `{store}` broke off\nhint: the same command again goes on where it ended"
    )]
    Broken {
        /// The store's folder.
        store: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It says no.
    #[error("{message}")]
    Refused {
        /// With which code the verb ends.
        code: u8,
        /// Why.
        message: String,
    },
}

impl Asked {
    /// With which code the verb ends.
    pub fn code(&self) -> u8 {
        match self {
            // A server listens there, and not for this user.
            Self::Nobody { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => exit::REFUSED,
            Self::Nobody { .. } | Self::Broken { .. } => exit::TRY_AGAIN,
            Self::Refused { code, .. } => *code,
        }
    }
}

/// The server of one store, and who hears how far it is.
pub struct Ask<'a> {
    /// The store's folder.
    pub store: &'a Path,
    /// Hears of [`Line::Waits`] and [`Line::Progress`].
    pub hears: &'a mut dyn FnMut(&Line),
}

impl std::fmt::Debug for Ask<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ask")
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}

/// A view of a store; it goes away with this.
#[derive(Debug)]
pub struct Viewed {
    /// Its folder.
    pub folder: PathBuf,
    _connection: BufReader<UnixStream>,
}

impl Ask<'_> {
    /// Where the server listens for clients, and whether it asks no upstream.
    ///
    /// # Errors
    /// [`Asked`].
    pub fn address(self) -> Result<(SocketAddr, bool), Asked> {
        let store = self.store;
        match self.send(&Order::Address)? {
            (Line::Listens { data, is_offline }, _) => Ok((data, is_offline)),
            (other, _) => Err(unexpected(store, &other)),
        }
    }

    /// A view of the store.
    ///
    /// # Errors
    /// [`Asked`].
    pub fn view(self) -> Result<Viewed, Asked> {
        let store = self.store;
        match self.send(&Order::View)? {
            (Line::Viewed { folder }, connection) => Ok(Viewed {
                folder,
                _connection: connection,
            }),
            (other, _) => Err(unexpected(store, &other)),
        }
    }

    /// Has a bundle taken in.
    ///
    /// # Errors
    /// [`Asked`].
    pub fn import(self, taking: Taking) -> Result<Imported, Asked> {
        let store = self.store;
        match self.send(&Order::Import(Box::new(taking)))? {
            (Line::Imported(imported), _) => Ok(*imported),
            (other, _) => Err(unexpected(store, &other)),
        }
    }

    /// The last line of the answer to `order`, and the connection.
    fn send(self, order: &Order) -> Result<(Line, BufReader<UnixStream>), Asked> {
        let broken = |source| Asked::Broken {
            store: self.store.to_owned(),
            source,
        };
        let mut stream = socket::connect(self.store).map_err(|source| Asked::Nobody {
            store: self.store.to_owned(),
            source,
        })?;
        stream.set_read_timeout(Some(SILENCE)).map_err(broken)?;
        let mut text = serde_json::to_vec(order).map_err(|error| broken(error.into()))?;
        text.push(b'\n');
        stream.write_all(&text).map_err(broken)?;
        let mut reader = BufReader::new(stream);
        loop {
            let mut text = Vec::new();
            reader
                .by_ref()
                .take(LONGEST)
                .read_until(b'\n', &mut text)
                .map_err(broken)?;
            if text.is_empty() {
                return Err(broken(io::ErrorKind::UnexpectedEof.into()));
            }
            match serde_json::from_slice(&text).map_err(|error| broken(error.into()))? {
                Line::Refused { code, message } => return Err(Asked::Refused { code, message }),
                line @ (Line::Waits | Line::Progress { .. }) => (self.hears)(&line),
                line @ (Line::Listens { .. } | Line::Viewed { .. } | Line::Imported(_)) => {
                    return Ok((line, reader));
                }
            }
        }
    }
}

fn unexpected(store: &Path, line: &Line) -> Asked {
    Asked::Broken {
        store: store.to_owned(),
        source: io::Error::other(format!("it said what was not asked for: {line:?}")),
    }
}
