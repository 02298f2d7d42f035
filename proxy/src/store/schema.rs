//! The version of the tables, and how an older store becomes one of this version.
//!
//! A migration is one transaction: a process that is killed in it finds the older store again. A store of a later version
//! is never touched.
//!
//! | schema | what changed |
//! |---|---|
//! | 1 | the first |
//! | 2 | `content` became `contents`, which keeps what eviction knows; `pins` are new |
//! | 3 | `known`, `generations` and `teachers` are new |
//! | 4 | `proofs` is new; `known` has digests by other functions, too, and `generations` name their upstream |

use redb::{Database, ReadableTable, TableDefinition, WriteTransaction};

use super::{
    eviction::{Queue, Standing},
    tables::{ContentValue, META, Tables},
};

/// The version that this program writes.
pub(super) const SCHEMA: u64 = 4;

/// Schema 1: digest → size, last use in seconds since 1970.
const CONTENT_1: TableDefinition<'_, [u8; 32], (u64, i64)> = TableDefinition::new("content");

/// Whether a store of version `found` can be carried over.
pub(super) fn is_older(found: u64) -> bool {
    (1..SCHEMA).contains(&found)
}

/// Carries a store of schema `found` over. Everything in it stays.
pub(super) fn migrate(database: &Database, found: u64) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    if found < 2 {
        give_standings(&transaction)?;
    }
    Tables::open(&transaction)?.found_known()?;
    transaction.open_table(META)?.insert("schema", SCHEMA)?;
    transaction.commit()?;
    Ok(())
}

/// From schema 1 to 2. The least recently used content is nearest to the exit.
fn give_standings(transaction: &WriteTransaction) -> Result<(), redb::Error> {
    {
        let mut rows = Vec::new();
        for row in transaction.open_table(CONTENT_1)?.iter()? {
            let (digest, value) = row?;
            let (length, last_use) = value.value();
            rows.push((last_use, digest.value(), length));
        }
        rows.sort_unstable();
        let mut tables = Tables::open(transaction)?;
        for (order, (last_use, digest, length)) in (1..).zip(rows) {
            let standing = Standing {
                queue: Queue::Main,
                uses: 0,
                order,
                at: u32::try_from(last_use).unwrap_or(0),
            };
            tables.carry_over(digest, ContentValue::of(length, standing))?;
        }
    }
    transaction.delete_table(CONTENT_1)?;
    Ok(())
}
