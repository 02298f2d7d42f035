//! The index as a file: opened, founded when it is new, set aside when it is damaged.

use std::{io, path::Path};

use kato_shared::{chain::Chain, durable};
use redb::{Database, ReadableDatabase};

use super::tables::{META, Tables};

/// Page cache of redb, in bytes; the memory tier holds what is hot.
const PAGE_CACHE: usize = 16 << 20;

/// Opens the file, creating it when it is missing.
pub(super) fn open_file(path: &Path) -> Result<Database, redb::Error> {
    Ok(Database::builder().set_cache_size(PAGE_CACHE).create(path)?)
}

/// Whether the file is an index that cannot be read, rather than one that is not to be read now.
pub(super) fn is_damage(error: &redb::Error) -> bool {
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
pub(super) fn set_aside(path: &Path, error: &redb::Error) -> io::Result<()> {
    let aside = path.with_extension("redb.damaged");
    tracing::error!(index = %path.display(), kept_as = %aside.display(), error = %Chain(error), "the index is damaged; beginning anew");
    durable::rename(path, &aside).map_err(|failed| failed.source)
}

pub(super) fn is_empty(database: &Database) -> Result<bool, redb::Error> {
    Ok(database.begin_read()?.list_tables()?.next().is_none())
}

pub(super) fn found(database: &Database) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    Tables::open(&transaction)?.found()?;
    transaction.commit()?;
    Ok(())
}

pub(super) fn read_meta(database: &Database, name: &str) -> Result<Option<u64>, redb::Error> {
    let transaction = database.begin_read()?;
    match transaction.open_table(META) {
        Ok(table) => Ok(table.get(name)?.map(|row| row.value())),
        Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
