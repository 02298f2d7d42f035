//! The index as a file: opened, founded when it is new, set aside when it is damaged.
//!
//! Invariant: what has the name of the index is a whole one. It is founded beside its place, as `index.redb.new`, and renamed into it; a
//! process that is killed before that leaves no index, and the next one founds it from the beginning.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use kato_shared::{
    chain::Chain,
    durable::{self, place},
};
use redb::{Builder, Database, ReadableDatabase};

use super::{
    OpenError,
    frozen::{self, Frozen},
    schema::{self, SCHEMA},
    tables::{META, Tables},
};

/// Page cache of redb, in bytes; the memory tier holds what is hot.
const PAGE_CACHE: usize = 16 << 20;

/// The first bytes of every redb file.
const REDB_MAGIC: &[u8] = b"redb\x1A\x0A\xA9\x0D\x0A";

/// Unused bytes that are left alone: the file grows and shrinks by as much.
const WORTH_COMPACTING: u64 = 1 << 20;

/// Opens the index of the store in `folder`: founded when it is new, begun anew when it is damaged, carried over when it is of an
/// older schema, refused when it is of a later one. Tells whether it was founded.
pub(super) fn open_index(path: &Path, folder: &Path) -> Result<(Database, bool), OpenError> {
    let unopened = |source: redb::Error| OpenError::Index {
        path: path.to_owned(),
        source: Box::new(source),
    };
    // Whether there is content that such a file might have known was judged when the folder was.
    let mut is_new = begins(path).is_ok_and(Beginning::has_nothing);
    if is_new {
        found_file(path).map_err(unopened)?;
    }
    let database = match open_file(path) {
        Err(error) if is_damage(&error) => {
            is_new = true;
            set_aside(path, &error).map_err(|source| OpenError::Unusable {
                path: folder.to_owned(),
                source,
            })?;
            open_file(path).map_err(unopened)?
        }
        opened => opened.map_err(unopened)?,
    };
    // Earlier programs founded it in its place; one that was killed meanwhile left a file without any table.
    if is_empty(&database).map_err(unopened)? {
        is_new = true;
        found(&database).map_err(unopened)?;
    }
    let schema = read_meta(&database, "schema").map_err(unopened)?;
    match schema {
        Some(SCHEMA) => {}
        Some(found) if schema::is_older(found) => {
            tracing::info!(
                from = found,
                to = SCHEMA,
                "the store is carried over to this program's schema"
            );
            schema::migrate(&database, found).map_err(unopened)?;
        }
        Some(found) => {
            return Err(OpenError::Newer {
                path: folder.to_owned(),
                found,
                known: SCHEMA,
            });
        }
        None => {
            return Err(OpenError::Foreign {
                path: folder.to_owned(),
                found: "index.redb without a schema".into(),
            });
        }
    }
    Ok((database, is_new))
}

/// How an index file begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Beginning {
    /// There is no file, or an empty one.
    Nothing,
    /// With zeros where the magic number belongs. redb writes that last, so it may be a file that an earlier program was founding.
    Zeros,
    /// As a file of redb does.
    Redb,
    /// As no index does.
    Foreign,
}

impl Beginning {
    /// Whether redb has never finished the file.
    pub(super) fn has_nothing(self) -> bool {
        matches!(self, Self::Nothing | Self::Zeros)
    }
}

/// How the file at `path` begins.
pub(super) fn begins(path: &Path) -> io::Result<Beginning> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(gone) if gone.kind() == io::ErrorKind::NotFound => return Ok(Beginning::Nothing),
        Err(error) => return Err(error),
    };
    let mut start = Vec::new();
    file.take(REDB_MAGIC.len() as u64).read_to_end(&mut start)?;
    Ok(match start.as_slice() {
        [] => Beginning::Nothing,
        REDB_MAGIC => Beginning::Redb,
        start if start.iter().all(|byte| *byte == 0) => Beginning::Zeros,
        _ => Beginning::Foreign,
    })
}

/// Opens the file, founding it when it is missing. On a file system that cannot be written it is opened for reading; what is
/// written then is lost.
pub(super) fn open_file(path: &Path) -> Result<Database, redb::Error> {
    if frozen::is_read_only(path) {
        return Ok(builder().create_with_backend(Frozen::open(path)?)?);
    }
    if begins(path)? == Beginning::Nothing {
        found_file(path)?;
    }
    Ok(builder().open(path)?)
}

fn builder() -> Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(PAGE_CACHE);
    builder
}

/// Founds an index beside `path`, whole and flushed, and gives it that name.
fn found_file(path: &Path) -> Result<(), redb::Error> {
    let failed = |failed: durable::DurableError| redb::Error::Io(failed.source);
    let fresh = founding(path);
    // Of a process that was killed.
    durable::remove(&fresh).map_err(failed)?;
    let made = builder().create(&fresh).map_err(redb::Error::from);
    place::visit("index.founding");
    let made = made.and_then(|database| found(&database));
    let named = made.and_then(|()| {
        let file = File::open(&fresh)?;
        durable::flush(&file, &fresh)
            .and_then(|()| durable::rename(&fresh, path))
            .map_err(failed)
    });
    if named.is_err() {
        // What cannot be removed now is removed by the next one.
        let _left = durable::remove(&fresh);
    }
    named
}

/// Where the index that will be `path` is founded.
pub(super) fn founding(path: &Path) -> PathBuf {
    path.with_extension("redb.new")
}

/// Where an index goes that is damaged.
pub(super) fn damaged(path: &Path) -> PathBuf {
    path.with_extension("redb.damaged")
}

/// Whether the file is an index that cannot be read, rather than one that is not to be read now.
fn is_damage(error: &redb::Error) -> bool {
    if let redb::Error::Io(cause) = error {
        return matches!(
            cause.kind(),
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
        );
    }
    matches!(error, redb::Error::Corrupted(_))
}

/// Moves a damaged index out of the way. Without it the content has no names: the cache begins anew, which is slow, but
/// better than none.
fn set_aside(path: &Path, error: &redb::Error) -> io::Result<()> {
    let aside = damaged(path);
    tracing::error!(index = %path.display(), kept_as = %aside.display(), error = %Chain(error), "the index is damaged; beginning anew");
    durable::rename(path, &aside).map_err(|failed| failed.source)
}

/// Whether enough of a file of `size` bytes holds nothing. Reads the whole index.
pub(super) fn is_worth_compacting(database: &Database, size: u64) -> Result<bool, redb::Error> {
    let transaction = database.begin_write()?;
    let stats = transaction.stats()?;
    transaction.abort()?;
    let page = u64::try_from(stats.page_size()).unwrap_or(u64::MAX);
    let unused = size.saturating_sub(stats.allocated_pages().saturating_mul(page));
    Ok(unused > WORTH_COMPACTING && unused > size / 4)
}

fn is_empty(database: &Database) -> Result<bool, redb::Error> {
    Ok(database.begin_read()?.list_tables()?.next().is_none())
}

fn found(database: &Database) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    Tables::open(&transaction)?.found()?;
    transaction.commit()?;
    Ok(())
}

fn read_meta(database: &Database, name: &str) -> Result<Option<u64>, redb::Error> {
    let transaction = database.begin_read()?;
    match transaction.open_table(META) {
        Ok(table) => Ok(table.get(name)?.map(|row| row.value())),
        Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
