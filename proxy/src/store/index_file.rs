//! The index as a file: opened, founded when it is new, set aside when it is damaged.

use std::{io, path::Path};

use kato_shared::{chain::Chain, durable};
use redb::{Database, ReadableDatabase};

use super::{
    OpenError,
    frozen::{self, Frozen},
    schema::{self, SCHEMA},
    tables::{META, Tables},
};

/// Page cache of redb, in bytes; the memory tier holds what is hot.
const PAGE_CACHE: usize = 16 << 20;

/// Unused bytes that are left alone: the file grows and shrinks by as much.
const WORTH_COMPACTING: u64 = 1 << 20;

/// Opens the index of the store in `folder`: founded when it is new, begun anew when it is damaged, carried over when it is of an
/// older schema, refused when it is of a later one. Tells whether it was founded.
pub(super) fn open_index(path: &Path, folder: &Path) -> Result<(Database, bool), OpenError> {
    let unopened = |source: redb::Error| OpenError::Index {
        path: path.to_owned(),
        source: Box::new(source),
    };
    let database = match open_file(path) {
        Err(error) if is_damage(&error) => {
            set_aside(path, &error).map_err(|source| OpenError::Unusable {
                path: folder.to_owned(),
                source,
            })?;
            open_file(path).map_err(unopened)?
        }
        opened => opened.map_err(unopened)?,
    };
    // A process that was killed while it founded the index left a file without any table.
    let is_new = is_empty(&database).map_err(unopened)?;
    if is_new {
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

/// Opens the file, creating it when it is missing. On a file system that cannot be written it is opened for reading; what is
/// written then is lost.
pub(super) fn open_file(path: &Path) -> Result<Database, redb::Error> {
    let mut builder = Database::builder();
    builder.set_cache_size(PAGE_CACHE);
    if frozen::is_read_only(path) {
        return Ok(builder.create_with_backend(Frozen::open(path)?)?);
    }
    Ok(builder.create(path)?)
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
    let aside = path.with_extension("redb.damaged");
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
