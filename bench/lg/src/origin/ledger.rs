//! What was asked for, and how many bytes have left, as it happens.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use serde_json::{Value, json};

use super::request::Request;
use crate::clock;

/// The log of all requests.
#[derive(Debug)]
pub(crate) struct Ledger {
    begin: Instant,
    pages: Mutex<Pages>,
}

#[derive(Debug, Default)]
struct Pages {
    /// Counts the resets: an entry that is older is not written to any more.
    generation: u64,
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    seconds: f64,
    method: String,
    path: String,
    range: String,
    conditions: String,
    status: u16,
    sent: u64,
    done: bool,
}

/// A place in the log.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Receipt {
    generation: u64,
    index: usize,
}

impl Ledger {
    /// Empty.
    pub(crate) fn new() -> Self {
        Self {
            begin: clock::now(),
            pages: Mutex::default(),
        }
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request has come.
    pub(crate) fn open(&self, request: &Request) -> Receipt {
        let mut pages = self.pages();
        pages.entries.push(Entry {
            seconds: self.begin.elapsed().as_secs_f64(),
            method: request.method.clone(),
            path: request.path.clone(),
            range: request.field("range").unwrap_or_default().to_owned(),
            conditions: request.conditions(),
            status: 0,
            sent: 0,
            done: false,
        });
        Receipt {
            generation: pages.generation,
            index: pages.entries.len() - 1,
        }
    }

    fn write(&self, receipt: Receipt, change: impl FnOnce(&mut Entry)) {
        let mut pages = self.pages();
        if pages.generation == receipt.generation
            && let Some(entry) = pages.entries.get_mut(receipt.index)
        {
            change(entry);
        }
    }

    /// The response has this status.
    pub(crate) fn status(&self, receipt: Receipt, status: u16) {
        self.write(receipt, |entry| entry.status = status);
    }

    /// That many more body bytes have left.
    pub(crate) fn sent(&self, receipt: Receipt, bytes: u64) {
        self.write(receipt, |entry| entry.sent += bytes);
    }

    /// The response is complete.
    pub(crate) fn done(&self, receipt: Receipt) {
        self.write(receipt, |entry| entry.done = true);
    }

    /// Forgets everything.
    pub(crate) fn reset(&self) {
        let mut pages = self.pages();
        pages.generation += 1;
        pages.entries.clear();
    }

    /// Counters and log.
    pub(crate) fn document(&self) -> Value {
        let pages = self.pages();
        let log: Vec<Value> = pages.entries.iter().map(Entry::document).collect();
        json!({
            "now": self.begin.elapsed().as_secs_f64(),
            "requests": pages.entries.len(),
            "bytes": pages.entries.iter().map(|entry| entry.sent).sum::<u64>(),
            "log": log,
        })
    }
}

impl Entry {
    fn document(&self) -> Value {
        json!({
            "t": self.seconds,
            "method": self.method,
            "path": self.path,
            "range": self.range,
            "cond": self.conditions,
            "status": self.status,
            "sent": self.sent,
            "done": self.done,
        })
    }
}
