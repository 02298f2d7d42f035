//! Learning: what a document teaches goes into the index, in batches, and counts all at once when the last is durable.
//!
//! Flow: [`Store::learn`] draws lessons from an iterator and writes them down, then tells the index that the document is learned.
//! [`Store::lookup`] shows what is taught about a key beside its stored responses, so that a hit costs no look-up more.
//!
//! Bounded: at most [`MOST_KNOWN`] keys; garbage makes room before a document is turned away.
//!
//! Deliberately absent: what documents look like (see `ecosystem/`), and when they are read (see `pipeline/`).

use std::sync::PoisonError;

use bytes::Bytes;
use kato_shared::Digest;
use redb::{ReadableTable, ReadableTableMetadata};

use super::{
    Generation, NoRoom, Store, StoreError, StoredResponse, blocking,
    known::{self, GENERATIONS, KNOWN},
    tables::{CONTENTS, Change, RESPONSES},
};
use crate::ecosystem::{Known, LessonError};

/// The most keys about which something is known. A key takes some 250 bytes of the index file and
/// ten to twenty of memory.
pub const MOST_KNOWN: u64 = 4_000_000;

/// Lessons of one transaction: others wait for it.
const BATCH: usize = 2048;

/// With more than this the memory tier forgets everything rather than key by key.
const FEW: usize = 4 * BATCH;

/// Why a document was not learned.
#[derive(Debug, thiserror::Error)]
pub enum LearnError {
    /// The document.
    #[error(transparent)]
    Document(#[from] LessonError),
    /// The index.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no room.
    #[error("{MOST_KNOWN} digests are known already, and none can be forgotten")]
    Full,
}

/// A key whose content is to be fetched before a new generation is published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outdated {
    /// The cache key.
    pub key: String,
    /// What its content will be.
    pub known: Known,
    /// Its content in the generation before, where that is stored.
    pub before: Option<Digest>,
}

/// What [`Store::forget_lessons`] removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// Readings of documents that are gone.
    pub generations: u64,
    /// Keys about which nothing is known any more.
    pub keys: u64,
}

impl Store {
    /// Learns `lessons`, by cache key, from the content `document` of `teacher`, a document of `upstream`; returns how many there were. Without any, or
    /// after an error, the store is as it was for everybody who asks. Blocks.
    ///
    /// # Errors
    /// [`LearnError`].
    pub fn learn(
        &self,
        (teacher, upstream): (&str, &str),
        document: Digest,
        lessons: impl Iterator<Item = Result<(String, Known), LessonError>>,
    ) -> Result<u64, LearnError> {
        let _one_at_a_time = self.0.learning.lock().unwrap_or_else(PoisonError::into_inner);
        let handle = self.0.index.handle();
        let number = 1 + handle.read("count the lessons", known::last_number)?;
        let mut lessons = lessons.peekable();
        let (mut count, mut keys) = (0, Vec::new());
        while lessons.peek().is_some() {
            let batch = lessons.by_ref().take(BATCH).collect::<Result<Vec<_>, _>>()?;
            self.make_lesson_room()?;
            count += batch.len() as u64;
            if keys.len() <= FEW {
                keys.extend(batch.iter().map(|(key, _)| key.clone()));
            }
            // Before it is durable, so that nobody who hears of the lesson is told that there is none.
            for (key, _) in &batch {
                self.0.index.ledger().taught().add(key);
            }
            let mut changes = vec![Change::Teach {
                number,
                lessons: batch,
            }];
            if lessons.peek().is_none() {
                let generation = Generation {
                    teacher: teacher.to_owned(),
                    upstream: upstream.to_owned(),
                    document,
                    at: self.0.clock.now().as_second(),
                };
                changes.push(Change::Graduate { number, generation });
            }
            self.0.index.submit_blocking(changes)?;
        }
        if keys.len() <= FEW {
            self.0.hot.forget(keys.iter().map(String::as_str));
        } else {
            self.0.hot.forget_all();
        }
        Ok(count)
    }

    /// Whether `document` is the last that was learned from `teacher` of `upstream`. Blocks.
    ///
    /// # Errors
    /// [`StoreError`] when the index cannot be read.
    pub fn has_learned(
        &self,
        (teacher, upstream): (&str, &str),
        document: Digest,
    ) -> Result<bool, StoreError> {
        let all = self.generations(teacher)?;
        let is_it = |last: &Generation| last.document == document && last.upstream == upstream;
        Ok(all.last().is_some_and(is_it))
    }

    /// What was learned from `teacher`, oldest first. Blocks.
    ///
    /// # Errors
    /// [`StoreError`] when the index cannot be read.
    pub fn generations(&self, teacher: &str) -> Result<Vec<Generation>, StoreError> {
        let read = |transaction: &redb::ReadTransaction| known::generations(transaction, teacher);
        self.0
            .index
            .handle()
            .read("look for what a document taught", read)
    }

    /// Of `lessons` of a new generation, those whose content is missing although the content of the generation `before` was used: it is
    /// stored, or something is stored under the key. Blocks.
    ///
    /// # Errors
    /// [`StoreError`] when the index cannot be read.
    pub fn outdated(&self, lessons: &[(String, Known)], before: Digest) -> Result<Vec<Outdated>, StoreError> {
        self.0.behind.settle_all();
        self.0
            .index
            .handle()
            .read("look for outdated indexes", |transaction| {
                let contents = transaction.open_table(CONTENTS)?;
                let responses = transaction.open_table(RESPONSES)?;
                let mut outdated = Vec::new();
                for (key, known) in lessons {
                    // Indexes of archives are known by SHA-256.
                    let Some(digest) = known.digest() else { continue };
                    if contents.get(digest.as_bytes())?.is_some() {
                        continue;
                    }
                    let taught = known::taught(transaction, key)?;
                    let old = taught.iter().find(|taught| taught.by.document == before);
                    let old = old.and_then(|taught| taught.known.digest());
                    let is_used = match old {
                        Some(old) => contents.get(old.as_bytes())?.is_some(),
                        None => false,
                    };
                    if is_used || responses.get(key.as_str())?.is_some() {
                        outdated.push(Outdated {
                            key: key.clone(),
                            known: *known,
                            before: old.filter(|_| is_used),
                        });
                    }
                }
                Ok(outdated)
            })
    }

    /// Stores `response` with its whole `body` under `key`, whatever its size.
    ///
    /// # Errors
    /// [`NoRoom`]; nothing is stored then.
    pub async fn put_whole(&self, key: String, response: StoredResponse, body: Bytes) -> Result<(), NoRoom> {
        if let Some(place) = self.place(body.len() as u64) {
            self.put_small(&key, response, body, place);
            return Ok(());
        }
        let mut temporary = self.begin(body.len() as u64).await?;
        let written = blocking(move || {
            let length = body.len() as u64;
            let failed = |source: std::io::Error| StoreError::Read {
                path: "a temporary file".into(),
                source: source.into(),
            };
            std::io::Write::write_all(&mut temporary.file().as_ref(), &body).map_err(failed)?;
            Ok((temporary, length))
        })
        .await
        .map_err(NoRoom::Disk)?;
        let length;
        (temporary, length) = written;
        temporary.grow(length)?;
        self.commit(temporary, key, response).await.map_err(NoRoom::Disk)
    }

    /// Forgets what documents taught that are no longer stored. Blocks.
    ///
    /// # Errors
    /// [`StoreError`] when the index cannot be read or changed.
    pub fn forget_lessons(&self) -> Result<Forgotten, StoreError> {
        let _one_at_a_time = self.0.learning.lock().unwrap_or_else(PoisonError::into_inner);
        self.0.behind.settle_all();
        self.forget_dead_lessons()
    }

    fn make_lesson_room(&self) -> Result<(), LearnError> {
        let is_full = || {
            let count = |transaction: &redb::ReadTransaction| Ok(transaction.open_table(KNOWN)?.len()?);
            let known = self.0.index.handle().read("count what is known", count)?;
            Ok::<_, StoreError>(known + BATCH as u64 > MOST_KNOWN)
        };
        if is_full()? {
            self.forget_dead_lessons()?;
            if is_full()? {
                return Err(LearnError::Full);
            }
        }
        Ok(())
    }

    fn forget_dead_lessons(&self) -> Result<Forgotten, StoreError> {
        let handle = self.0.index.handle();
        let gone = handle.read("look for documents that are gone", |transaction| {
            let contents = transaction.open_table(CONTENTS)?;
            let mut gone = Vec::new();
            for row in transaction.open_table(GENERATIONS)?.iter()? {
                let (number, row) = row?;
                let document = known::decode_one::<Generation>(row.value()).map(|row| row.document);
                let is_there = match document {
                    Some(document) => contents.get(document.as_bytes())?.is_some(),
                    None => false,
                };
                if !is_there {
                    gone.push(number.value());
                }
            }
            Ok(gone)
        })?;
        let mut forgotten = Forgotten {
            generations: gone.len() as u64,
            keys: 0,
        };
        if !gone.is_empty() {
            self.0.index.submit_blocking(vec![Change::Forget { gone }])?;
        }
        self.0.index.submit_blocking(vec![Change::SweepProofs])?;
        let dead = handle.read("look for what is no longer taught", |transaction| {
            let generations = transaction.open_table(GENERATIONS)?;
            let mut dead = Vec::new();
            for row in transaction.open_table(KNOWN)?.iter()? {
                let (key, row) = row?;
                if !known::is_alive(row.value(), &generations)? {
                    dead.push(key.value().to_owned());
                }
            }
            Ok(dead)
        })?;
        for keys in dead.chunks(BATCH) {
            forgotten.keys += keys.len() as u64;
            self.0
                .index
                .submit_blocking(vec![Change::Sweep { keys: keys.to_vec() }])?;
            for key in keys {
                self.0.index.ledger().taught().remove(key);
            }
        }
        if forgotten != Forgotten::default() {
            self.0.hot.forget_all();
        }
        Ok(forgotten)
    }
}

#[cfg(test)]
mod tests;
