//! What a run adds up to.
#![expect(clippy::cast_precision_loss, reason = "figures for people")]

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{exchange::Exchange, histogram::Histogram, target::Target};
use crate::clock;

/// Counts and times of all exchanges that have ended.
#[derive(Debug)]
pub(crate) struct Tally {
    /// Requests sent.
    pub(crate) requests: u64,
    /// Body bytes.
    pub(crate) bytes: u64,
    /// Requests sent again because an idle connection had been closed.
    pub(crate) reconnects: u64,
    ok: u64,
    errors: BTreeMap<String, u64>,
    status: BTreeMap<u16, u64>,
    wrong: u64,
    latency: Histogram,
    first_byte: Histogram,
    records: Vec<Value>,
}

impl Tally {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        Self {
            requests: 0,
            bytes: 0,
            reconnects: 0,
            ok: 0,
            errors: BTreeMap::new(),
            status: BTreeMap::new(),
            wrong: 0,
            latency: Histogram::new(),
            first_byte: Histogram::new(),
            records: Vec::new(),
        }
    }

    /// Counts an exchange that has ended, well or with `error`; `recorded` since the given start.
    pub(crate) fn add(
        &mut self,
        exchange: &Exchange,
        target: &Target,
        error: Option<String>,
        recorded: Option<Instant>,
    ) {
        self.bytes += exchange.bytes;
        *self.status.entry(exchange.reception.status).or_default() += 1;
        self.wrong += u64::from(error.as_deref() == Some("wrong_length") || exchange.is_wrong());
        if let Some(begin) = recorded {
            self.records
                .push(exchange.record(target, begin, error.as_deref()));
        }
        if let Some(error) = error {
            *self.errors.entry(error).or_default() += 1;
            return;
        }
        self.ok += 1;
        self.latency.add(clock::now() - exchange.started);
        if let Some(took) = exchange.first_byte() {
            self.first_byte.add(took);
        }
    }

    /// The document: `wall` from the first request to the last byte, `cpu` the generator's own.
    pub(crate) fn figures(self, wall: Duration, cpu: Duration) -> Value {
        let seconds = wall.as_secs_f64().max(1e-9);
        json!({
            "wall_s": seconds,
            "requests": self.requests,
            "ok": self.ok,
            "errors": self.errors,
            "status": self.status,
            "body_bytes": self.bytes,
            "rps": self.ok as f64 / seconds,
            "gb_s": self.bytes as f64 / seconds / 1e9,
            "verify_fail": self.wrong,
            "reconnects": self.reconnects,
            "lg_cpu_s": cpu.as_secs_f64(),
            "lat_us": self.latency.figures(),
            "ttfb_us": self.first_byte.figures(),
            "detail": self.records,
        })
    }
}
