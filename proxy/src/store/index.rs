//! The index: a redb file with one writer thread that commits for everybody who waits at the moment.
//!
//! Flow: a change is sent to the thread, the thread takes all that are waiting into one transaction, commits it durably
//! (`Durability::Immediate`: the file is flushed before the answer), and answers each. One flush is shared by many.
//!
//! redb refuses further writes after a commit that failed half-way (a full disk); the thread then reopens the file, which
//! repairs it, so that the store heals when there is space again.
//!
//! Invariants: whoever gets `Ok` has a durable change. Content is durable before the change that names it is sent.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, PoisonError, RwLock,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
};

use kato_shared::{Digest, chain::Chain};
use redb::{Database, ReadableDatabase, ReadableTable, ReadableTableMetadata};
use tokio::sync::oneshot;

use super::{
    OpenError, StoreError, StoredResponse,
    index_file::{found, is_damage, is_empty, open_file, read_meta, set_aside},
    tables::{self, CONTENT, Change, META, RESPONSES, SCHEMA, Tables},
};

/// Changes that may wait for the writer; more would only queue up memory, so senders wait.
const QUEUE: usize = 1024;

type Reply = oneshot::Sender<Result<(), StoreError>>;
type Job = (Vec<Change>, Reply);

/// The open index.
#[derive(Debug)]
pub(super) struct Index {
    database: Arc<Handle>,
    /// Whether this index was founded just now.
    pub(super) is_new: bool,
    jobs: Option<SyncSender<Job>>,
    writer: Option<thread::JoinHandle<()>>,
}

/// The database, replaced when it must be reopened. `None` only while it is.
#[derive(Debug)]
struct Handle {
    path: PathBuf,
    open: RwLock<Option<Database>>,
}

/// Totals of the index.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Cache keys with a stored response.
    pub responses: u64,
    /// Bytes of distinct content.
    pub bytes: u64,
}

/// Content as the index knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ContentRow {
    pub(super) digest: Digest,
    pub(super) length: u64,
    /// Seconds since 1970.
    pub(super) last_use: i64,
    pub(super) is_referenced: bool,
}

impl Index {
    /// Opens the index file, creating it when it is missing.
    pub(super) fn open(path: &Path, folder: &Path) -> Result<Self, OpenError> {
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
        let database = Arc::new(Handle {
            path: path.to_owned(),
            open: RwLock::new(Some(database)),
        });
        let (jobs, queue) = sync_channel(QUEUE);
        let handle = Arc::clone(&database);
        let writer = thread::Builder::new()
            .name("index-writer".into())
            .spawn(move || write_all(&handle, &queue))
            .map_err(|source| OpenError::Unusable {
                path: folder.to_owned(),
                source,
            })?;
        Ok(Self {
            database,
            is_new,
            jobs: Some(jobs),
            writer: Some(writer),
        })
    }

    /// Makes `changes` in one transaction and returns when they are durable. Blocks while the queue is full.
    pub(super) fn submit(&self, changes: Vec<Change>) -> oneshot::Receiver<Result<(), StoreError>> {
        let (reply, answer) = oneshot::channel();
        if let Some(jobs) = &self.jobs {
            // Without a writer the reply is dropped here, and the receiver says so.
            let _undelivered = jobs.send((changes, reply));
        }
        answer
    }

    /// [`Self::submit`], waiting for the answer on this thread.
    pub(super) fn submit_blocking(&self, changes: Vec<Change>) -> Result<(), StoreError> {
        self.submit(changes)
            .blocking_recv()
            .unwrap_or(Err(StoreError::Closing))
    }

    /// The stored responses of `key`.
    pub(super) fn responses(&self, key: &str) -> Result<Vec<StoredResponse>, StoreError> {
        let row = self.database.read("read a response", |transaction| {
            let table = transaction.open_table(RESPONSES)?;
            Ok(table.get(key)?.map(|row| row.value().to_vec()))
        })?;
        row.map_or_else(|| Ok(Vec::new()), |row| tables::decode(key, &row))
    }

    /// Up to `limit` keys that begin with `prefix`, after `after`, in order, with their responses.
    pub(super) fn list(
        &self,
        prefix: &str,
        after: &str,
        limit: usize,
    ) -> Result<Vec<(String, Vec<StoredResponse>)>, StoreError> {
        let from = prefix.max(after);
        let rows = self.database.read("list the responses", |transaction| {
            let table = transaction.open_table(RESPONSES)?;
            let mut rows = Vec::new();
            for row in table.range::<&str>(from..)? {
                let (key, value) = row?;
                if !key.value().starts_with(prefix) || rows.len() >= limit {
                    break;
                }
                if key.value() > after {
                    rows.push((key.value().to_owned(), value.value().to_vec()));
                }
            }
            Ok(rows)
        })?;
        rows.into_iter()
            .map(|(key, row)| tables::decode(&key, &row).map(|responses| (key, responses)))
            .collect()
    }

    /// All content, in no particular order.
    pub(super) fn content(&self) -> Result<Vec<ContentRow>, StoreError> {
        self.database.read("list the content", |transaction| {
            let table = transaction.open_table(CONTENT)?;
            let references = transaction.open_multimap_table(tables::REFERENCES)?;
            let mut rows = Vec::new();
            for row in table.iter()? {
                let (digest, row) = row?;
                let digest = Digest::from_bytes(digest.value());
                let (length, last_use) = row.value();
                let is_referenced =
                    !redb::ReadableMultimapTable::get(&references, digest.as_bytes())?.is_empty();
                rows.push(ContentRow {
                    digest,
                    length,
                    last_use,
                    is_referenced,
                });
            }
            Ok(rows)
        })
    }

    /// A key whose responses name `digest`.
    pub(super) fn key_of(&self, digest: &Digest) -> Result<Option<String>, StoreError> {
        self.database.read("look for a name of content", |transaction| {
            let references = transaction.open_multimap_table(tables::REFERENCES)?;
            let mut keys = redb::ReadableMultimapTable::get(&references, digest.as_bytes())?;
            Ok(keys.next().transpose()?.map(|key| key.value().to_owned()))
        })
    }

    /// The size of `digest`, if the index knows it.
    pub(super) fn content_length(&self, digest: &Digest) -> Result<Option<u64>, StoreError> {
        self.database.read("look for content", |transaction| {
            let table = transaction.open_table(CONTENT)?;
            Ok(table.get(digest.as_bytes())?.map(|row| row.value().0))
        })
    }

    /// Totals for metrics and quota.
    pub(super) fn totals(&self) -> Result<Totals, StoreError> {
        self.database.read("count the responses", |transaction| {
            Ok(Totals {
                responses: transaction.open_table(RESPONSES)?.len()?,
                bytes: transaction
                    .open_table(META)?
                    .get("bytes")?
                    .map_or(0, |row| row.value()),
            })
        })
    }
}

impl Drop for Index {
    /// Lets the writer finish what was sent, so that a graceful stop loses nothing.
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(writer) = self.writer.take() {
            // A writer that panicked has nothing left to finish.
            let _finished = writer.join();
        }
    }
}

impl Handle {
    fn read<T>(
        &self,
        action: &'static str,
        work: impl FnOnce(&redb::ReadTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        let guard = self.open.read().unwrap_or_else(PoisonError::into_inner);
        let database = guard.as_ref().ok_or(StoreError::Closing)?;
        database
            .begin_read()
            .map_err(redb::Error::from)
            .and_then(|transaction| work(&transaction))
            .map_err(StoreError::index(action))
    }

    fn write(&self, changes: &[Job]) -> Result<(), StoreError> {
        let guard = self.open.read().unwrap_or_else(PoisonError::into_inner);
        let database = guard.as_ref().ok_or(StoreError::Closing)?;
        let transaction = database
            .begin_write()
            .map_err(StoreError::index("begin a change"))?;
        {
            let mut tables = Tables::open(&transaction).map_err(StoreError::index("open its tables"))?;
            for change in changes.iter().flat_map(|(changes, _)| changes) {
                tables.apply(change)?;
            }
        }
        transaction.commit().map_err(StoreError::index("commit"))
    }

    /// Closes the file and opens it again, which repairs what a failed commit left.
    fn reopen(&self) {
        let mut guard = self.open.write().unwrap_or_else(PoisonError::into_inner);
        *guard = None;
        match open_file(&self.path) {
            Ok(database) => *guard = Some(database),
            Err(error) => {
                tracing::error!(index = %self.path.display(), error = %Chain(&error), "the index cannot be reopened");
            }
        }
    }

    fn is_open(&self) -> bool {
        self.open.read().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}

fn write_all(database: &Handle, queue: &Receiver<Job>) {
    while let Ok(first) = queue.recv() {
        let mut jobs = vec![first];
        jobs.extend(queue.try_iter().take(QUEUE));
        if !database.is_open() {
            database.reopen();
        }
        let outcome = database.write(&jobs);
        if let Err(error) = &outcome {
            tracing::warn!(error = %Chain(error), "the index could not be changed");
            database.reopen();
        }
        for (_, reply) in jobs {
            // Whoever asked may have stopped waiting; the change is made either way.
            let _not_waiting = reply.send(outcome.clone());
        }
    }
}
