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
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
};

use kato_shared::{Digest, chain::Chain};
use redb::{Database, ReadableDatabase, ReadableTable, ReadableTableMetadata};
use tokio::sync::oneshot;

use super::{
    OpenError, StoreError, StoredResponse, Taught, frozen,
    index_file::{is_worth_compacting, open_file, open_index},
    known,
    ledger::{Ledger, Loader},
    tables::{self, CONTENTS, Change, Effect, META, RESPONSES, Tables},
};

/// Changes that may wait for the writer; more would only queue up memory, so senders wait.
const QUEUE: usize = 1024;

type Reply = oneshot::Sender<Result<(), StoreError>>;
type Job = (Vec<Change>, Reply);

/// The open index.
#[derive(Debug)]
pub(super) struct Index {
    database: Arc<Handle>,
    ledger: Arc<Ledger>,
    /// Whether this index was founded just now.
    pub(super) is_new: bool,
    jobs: Option<SyncSender<Job>>,
    writer: Option<thread::JoinHandle<()>>,
    _loader: Loader,
}

/// The database, replaced when it must be reopened. `None` only while it is.
#[derive(Debug)]
pub(super) struct Handle {
    path: PathBuf,
    open: RwLock<Option<Database>>,
    /// Whether the file cannot be written; what is written to the open database is then lost.
    is_frozen: AtomicBool,
}

/// Totals of the index.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Cache keys with a stored response.
    pub responses: u64,
    /// Distinct contents.
    pub contents: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Content as the index knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ContentRow {
    pub(super) digest: Digest,
    pub(super) length: u64,
}

impl Index {
    /// Opens the index file, creating it when it is missing.
    pub(super) fn open(path: &Path, folder: &Path) -> Result<Self, OpenError> {
        let (database, is_new) = open_index(path, folder)?;
        let database = Arc::new(Handle {
            path: path.to_owned(),
            open: RwLock::new(Some(database)),
            is_frozen: AtomicBool::new(frozen::is_read_only(path)),
        });
        let pins = database.pins().map_err(|error| OpenError::Unusable {
            path: folder.to_owned(),
            source: io::Error::other(error),
        })?;
        let ledger = Arc::new(Ledger::new(pins.into_iter().map(|(pin, _)| pin)));
        let (jobs, queue) = sync_channel(QUEUE);
        let handle = Arc::clone(&database);
        let known = Arc::clone(&ledger);
        let writer = thread::Builder::new()
            .name("index-writer".into())
            .spawn(move || write_all(&handle, &known, &queue))
            .map_err(|source| OpenError::Unusable {
                path: folder.to_owned(),
                source,
            })?;
        let loader = Loader::start(&ledger, Arc::clone(&database)).map_err(|source| OpenError::Unusable {
            path: folder.to_owned(),
            source,
        })?;
        Ok(Self {
            database,
            ledger,
            is_new,
            jobs: Some(jobs),
            writer: Some(writer),
            _loader: loader,
        })
    }

    /// What the process remembers about the content.
    pub(super) fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
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
        self.database.responses(key)
    }

    /// The stored responses of `key`, and what is taught about it.
    pub(super) fn entry(&self, key: &str) -> Result<(Vec<StoredResponse>, Vec<Taught>), StoreError> {
        self.database.entry(key)
    }

    /// For reads that are defined elsewhere.
    pub(super) fn handle(&self) -> &Arc<Handle> {
        &self.database
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
            let table = transaction.open_table(CONTENTS)?;
            let mut rows = Vec::new();
            for row in table.iter()? {
                let (digest, row) = row?;
                rows.push(ContentRow {
                    digest: Digest::from_bytes(digest.value()),
                    length: row.value().0,
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

    /// All keys whose responses name `digest`.
    pub(super) fn keys_of(&self, digest: &Digest) -> Result<Vec<String>, StoreError> {
        self.database
            .read("look for the names of content", |transaction| {
                let references = transaction.open_multimap_table(tables::REFERENCES)?;
                let keys = redb::ReadableMultimapTable::get(&references, digest.as_bytes())?;
                keys.map(|key| Ok(key?.value().to_owned())).collect()
            })
    }

    /// The size of `digest`, if the index knows it.
    pub(super) fn content_length(&self, digest: &Digest) -> Result<Option<u64>, StoreError> {
        self.database.read("look for content", |transaction| {
            let table = transaction.open_table(CONTENTS)?;
            Ok(table.get(digest.as_bytes())?.map(|row| row.value().0))
        })
    }

    /// Totals for metrics and quota.
    pub(super) fn totals(&self) -> Result<Totals, StoreError> {
        self.database.read("count the responses", |transaction| {
            Ok(Totals {
                responses: transaction.open_table(RESPONSES)?.len()?,
                contents: transaction.open_table(CONTENTS)?.len()?,
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
    /// The stored responses of `key`.
    pub(super) fn responses(&self, key: &str) -> Result<Vec<StoredResponse>, StoreError> {
        let row = self.read("read a response", |transaction| {
            let table = transaction.open_table(RESPONSES)?;
            Ok(table.get(key)?.map(|row| row.value().to_vec()))
        })?;
        row.map_or_else(|| Ok(Vec::new()), |row| tables::decode(key, &row))
    }

    /// The stored responses of `key`, and what is taught about it.
    fn entry(&self, key: &str) -> Result<(Vec<StoredResponse>, Vec<Taught>), StoreError> {
        let (row, taught) = self.read("read a response", |transaction| {
            let table = transaction.open_table(RESPONSES)?;
            let row = table.get(key)?.map(|row| row.value().to_vec());
            Ok((row, known::taught(transaction, key)?))
        })?;
        let responses = row.map_or_else(|| Ok(Vec::new()), |row| tables::decode(key, &row))?;
        Ok((responses, taught))
    }

    pub(super) fn read<T>(
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

    fn write(&self, changes: &[Job]) -> Result<Vec<Effect>, StoreError> {
        if self.is_frozen.load(Ordering::SeqCst) {
            return Err(StoreError::ReadOnly);
        }
        let guard = self.open.read().unwrap_or_else(PoisonError::into_inner);
        let database = guard.as_ref().ok_or(StoreError::Closing)?;
        let mut transaction = database
            .begin_write()
            .map_err(StoreError::index("begin a change"))?;
        // After a kill the file is opened as fast as after a clean stop: nothing has to be walked. Costs one flush more for each
        // commit, which many share.
        transaction.set_quick_repair(true);
        let effects = {
            let mut tables = Tables::open(&transaction).map_err(StoreError::index("open its tables"))?;
            for change in changes.iter().flat_map(|(changes, _)| changes) {
                tables.apply(change)?;
            }
            tables.effects()
        };
        transaction.commit().map_err(StoreError::index("commit"))?;
        Ok(effects)
    }

    /// Gives pages that hold nothing back to the file system when there are many; tells the file's size before and after. All
    /// others wait. A process that is killed in it finds the index as it was: each step is a transaction.
    pub(super) fn compact(&self) -> Result<(u64, u64), StoreError> {
        let size = || std::fs::metadata(&self.path).map_or(0, |found| found.len());
        let before = size();
        if self.is_frozen.load(Ordering::SeqCst) {
            return Err(StoreError::ReadOnly);
        }
        let mut guard = self.open.write().unwrap_or_else(PoisonError::into_inner);
        let database = guard.as_mut().ok_or(StoreError::Closing)?;
        if is_worth_compacting(database, before).map_err(StoreError::index("measure itself"))? {
            database.compact().map_err(StoreError::index("compact"))?;
        }
        Ok((before, size()))
    }

    /// Closes the file and opens it again, which repairs what a failed commit left.
    fn reopen(&self) {
        let is_read_only = frozen::is_read_only(&self.path);
        let mut guard = self.open.write().unwrap_or_else(PoisonError::into_inner);
        if guard.is_some() && self.is_frozen.load(Ordering::SeqCst) && is_read_only {
            return;
        }
        *guard = None;
        self.is_frozen.store(is_read_only, Ordering::SeqCst);
        match open_file(&self.path) {
            Ok(database) => *guard = Some(database),
            Err(error) => {
                tracing::error!(index = %self.path.display(), error = %Chain(&error), "the index cannot be reopened");
            }
        }
    }

    fn can_be_written(&self) -> bool {
        let guard = self.open.read().unwrap_or_else(PoisonError::into_inner);
        guard.is_some() && !self.is_frozen.load(Ordering::SeqCst)
    }
}

fn write_all(database: &Handle, ledger: &Ledger, queue: &Receiver<Job>) {
    while let Ok(first) = queue.recv() {
        let mut jobs = vec![first];
        jobs.extend(queue.try_iter().take(QUEUE));
        if !database.can_be_written() {
            database.reopen();
        }
        // The memory is in line before anybody hears of the change.
        let outcome = database.write(&jobs).map(|effects| ledger.apply(effects));
        if let Err(error) = &outcome {
            crate::seldom::warn_seldom!(error = %Chain(error), "the index could not be changed");
            // Nobody knows how far it came.
            for (changes, _) in &jobs {
                for change in changes {
                    if let Change::Put { key, .. } = change {
                        ledger.keys().add(key);
                    }
                }
            }
            database.reopen();
        }
        for (_, reply) in jobs {
            // Whoever asked may have stopped waiting; the change is made either way.
            let _not_waiting = reply.send(outcome.clone());
        }
    }
}
