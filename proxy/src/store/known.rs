//! Digests that documents have taught, as rows.
//!
//! | table | row |
//! |---|---|
//! | `known` | cache key → what is known about its content, each with the numbers of the generations that teach it |
//! | `generations` | number → one reading of a document: its teacher's name, its content, when |
//! | `teachers` | teacher's name → the numbers of its last [`KEPT`] generations, oldest first |
//!
//! A row counts only while one of its generations stands in `generations`. So a document is learned all at once, by the last change of its
//! reading, however many transactions came before; and it is forgotten all at once, however many rows it has left behind. Those go
//! when their key is taught again, or with the garbage.
//!
//! Numbers are never given twice: a reading that a kill has ended leaves rows that no generation will ever own.

use kato_shared::Digest;
use redb::{ReadTransaction, ReadableTable, Table, TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{StoreError, proofs, tables::META};
use crate::ecosystem::Known;

pub(super) const KNOWN: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("known");
pub(super) const GENERATIONS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("generations");
pub(super) const TEACHERS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("teachers");

/// The row of `meta` with the last number that was given.
pub(super) const LAST_GENERATION: &str = "generation";

/// Generations of one document whose lessons count: clients that read an older one may still be at work with it.
pub const KEPT: usize = 3;

/// The most that is known about one key: several documents may teach it, each in several generations.
const MOST_OF_KEY: usize = 12;

/// One reading of a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    /// The name under which the generations of the document are counted: the URL of the document or of what it stands for.
    pub teacher: String,
    /// The name of the upstream that it is of: what it teaches is about what is asked of that upstream. Empty, in rows of older
    /// versions, for all.
    #[serde(default)]
    pub upstream: String,
    /// Its content.
    pub document: Digest,
    /// When it was learned, in seconds since 1970.
    pub at: i64,
}

/// What a document has taught about a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taught {
    /// What is known.
    pub known: Known,
    /// From which document.
    pub by: Generation,
    /// Greater for what was learned later.
    pub number: u64,
}

impl Taught {
    /// Whether it is about what is asked of `upstream`.
    pub fn is_of(&self, upstream: &str) -> bool {
        self.by.upstream.is_empty() || self.by.upstream == upstream
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Row {
    #[serde(flatten)]
    known: Known,
    generations: Vec<u64>,
}

/// What is taught about `key`, the latest first.
pub(super) fn taught(transaction: &ReadTransaction, key: &str) -> Result<Vec<Taught>, redb::Error> {
    let table = transaction.open_table(KNOWN)?;
    let Some(row) = table.get(key)? else {
        return Ok(Vec::new());
    };
    let generations = transaction.open_table(GENERATIONS)?;
    let mut all = Vec::new();
    for Row {
        known,
        generations: numbers,
    } in decode::<Vec<Row>>(row.value())
    {
        let known = proofs::resolved(transaction, key, known)?;
        for number in numbers {
            let by = generations.get(number)?;
            if let Some(by) = by.and_then(|row| serde_json::from_slice(row.value()).ok()) {
                all.push(Taught { known, by, number });
            }
        }
    }
    all.sort_by_key(|taught| std::cmp::Reverse(taught.number));
    Ok(all)
}

/// The generations of `teacher`, oldest first.
pub(super) fn generations(
    transaction: &ReadTransaction,
    teacher: &str,
) -> Result<Vec<Generation>, redb::Error> {
    let numbers = transaction
        .open_table(TEACHERS)?
        .get(teacher)?
        .map(|row| decode::<Vec<u64>>(row.value()));
    let table = transaction.open_table(GENERATIONS)?;
    let mut all = Vec::new();
    for number in numbers.unwrap_or_default() {
        if let Some(row) = table.get(number)? {
            all.extend(serde_json::from_slice::<Generation>(row.value()).ok());
        }
    }
    Ok(all)
}

/// Writes down lessons of the generation `number`, which nobody sees before [`graduate`].
pub(super) fn teach(
    transaction: &WriteTransaction,
    meta: &mut Table<'_, &'static str, u64>,
    (number, lessons): (u64, &[(String, Known)]),
) -> Result<(), StoreError> {
    let mut write = || -> Result<(), redb::Error> {
        meta.insert(LAST_GENERATION, number)?;
        let generations = transaction.open_table(GENERATIONS)?;
        let mut table = transaction.open_table(KNOWN)?;
        for (key, known) in lessons {
            let mut rows: Vec<Row> = table
                .get(key.as_str())?
                .map_or_else(Vec::new, |row| decode(row.value()));
            for row in &mut rows {
                let mut alive = Vec::with_capacity(row.generations.len() + 1);
                for other in row.generations.drain(..) {
                    if other == number || generations.get(other)?.is_some() {
                        alive.push(other);
                    }
                }
                row.generations = alive;
            }
            rows.retain(|row| !row.generations.is_empty());
            match rows.iter_mut().find(|row| row.known == *known) {
                Some(row) if row.generations.contains(&number) => {}
                Some(row) => row.generations.push(number),
                None => rows.push(Row {
                    known: *known,
                    generations: vec![number],
                }),
            }
            let excess = rows.len().saturating_sub(MOST_OF_KEY);
            rows.drain(..excess);
            table.insert(key.as_str(), encode(&rows).as_slice())?;
        }
        Ok(())
    };
    write().map_err(StoreError::index("write down what a document teaches"))
}

/// All lessons of the generation `number` are written: from now on they count, and those of its oldest predecessor no longer.
pub(super) fn graduate(
    transaction: &WriteTransaction,
    number: u64,
    generation: &Generation,
) -> Result<(), StoreError> {
    let write = || -> Result<(), redb::Error> {
        let mut generations = transaction.open_table(GENERATIONS)?;
        let mut teachers = transaction.open_table(TEACHERS)?;
        let teacher = generation.teacher.as_str();
        let mut numbers: Vec<u64> = teachers
            .get(teacher)?
            .map_or_else(Vec::new, |row| decode(row.value()));
        let mut kept = Vec::with_capacity(KEPT);
        for other in numbers.drain(..) {
            let row = generations.get(other)?.map(|row| decode_one(row.value()));
            // The same document again takes its own place.
            let is_same = row
                .flatten()
                .is_none_or(|row: Generation| row.document == generation.document);
            if is_same {
                generations.remove(other)?;
            } else {
                kept.push(other);
            }
        }
        let excess = (kept.len() + 1).saturating_sub(KEPT);
        for oldest in kept.drain(..excess) {
            generations.remove(oldest)?;
        }
        kept.push(number);
        generations.insert(number, encode(generation).as_slice())?;
        teachers.insert(teacher, encode(&kept).as_slice())?;
        Ok(())
    };
    write().map_err(StoreError::index("write down that a document is learned"))
}

/// Forgets generations whose document is `gone`; returns how many.
pub(super) fn forget(transaction: &WriteTransaction, gone: &[u64]) -> Result<(), StoreError> {
    let write = || -> Result<(), redb::Error> {
        let mut generations = transaction.open_table(GENERATIONS)?;
        let mut teachers = transaction.open_table(TEACHERS)?;
        for number in gone {
            let row = generations
                .remove(number)?
                .and_then(|row| decode_one::<Generation>(row.value()));
            let Some(Generation { teacher, .. }) = row else {
                continue;
            };
            let teacher = teacher.as_str();
            let mut numbers: Vec<u64> = teachers
                .get(teacher)?
                .map_or_else(Vec::new, |row| decode(row.value()));
            numbers.retain(|other| other != number);
            if numbers.is_empty() {
                teachers.remove(teacher)?;
            } else {
                teachers.insert(teacher, encode(&numbers).as_slice())?;
            }
        }
        Ok(())
    };
    write().map_err(StoreError::index("forget what a document taught"))
}

/// Removes those of `keys` about which no generation says anything any more.
pub(super) fn sweep(transaction: &WriteTransaction, keys: &[String]) -> Result<(), StoreError> {
    let write = || -> Result<(), redb::Error> {
        let generations = transaction.open_table(GENERATIONS)?;
        let mut table = transaction.open_table(KNOWN)?;
        for key in keys {
            let row = table.get(key.as_str())?.map(|row| row.value().to_vec());
            if let Some(row) = row
                && !is_alive(&row, &generations)?
            {
                table.remove(key.as_str())?;
            }
        }
        Ok(())
    };
    write().map_err(StoreError::index("remove what is no longer taught"))
}

/// Whether some generation stands behind a row of `known`.
pub(super) fn is_alive(
    row: &[u8],
    generations: &impl ReadableTable<u64, &'static [u8]>,
) -> Result<bool, redb::Error> {
    for row in decode::<Vec<Row>>(row) {
        for number in row.generations {
            if generations.get(number)?.is_some() {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// The last number that was given.
pub(super) fn last_number(transaction: &ReadTransaction) -> Result<u64, redb::Error> {
    let meta = transaction.open_table(META)?;
    Ok(meta.get(LAST_GENERATION)?.map_or(0, |row| row.value()))
}

/// A row; one that cannot be read says nothing, and is written anew with the next lesson.
fn decode<T: DeserializeOwned + Default>(row: &[u8]) -> T {
    serde_json::from_slice(row).unwrap_or_default()
}

pub(super) fn decode_one<T: DeserializeOwned>(row: &[u8]) -> Option<T> {
    serde_json::from_slice(row).ok()
}

fn encode<T: Serialize>(row: &T) -> Vec<u8> {
    // Numbers, strings and lists of them can always be written.
    serde_json::to_vec(row).unwrap_or_default()
}
