//! One request and its response, with the times at which its parts came.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{reception::Reception, target::Target};
use crate::clock;

/// A request under way.
#[derive(Debug)]
pub(crate) struct Exchange {
    /// Which of the targets.
    pub(crate) target: usize,
    /// When the request was first sent.
    pub(crate) started: Instant,
    /// When the last bytes came, or the request went out.
    pub(crate) heard: Instant,
    /// Body bytes so far.
    pub(crate) bytes: u64,
    /// The response.
    pub(crate) reception: Reception,
    head_at: Option<Instant>,
    body_at: Option<Instant>,
    wrong: bool,
}

impl Exchange {
    /// Asks for target number `target`, now; `reception` is memory to use again.
    pub(crate) fn new(target: usize, mut reception: Reception) -> Self {
        let now = clock::now();
        reception.clear();
        Self {
            target,
            started: now,
            heard: now,
            bytes: 0,
            reception,
            head_at: None,
            body_at: None,
            wrong: false,
        }
    }

    /// Whether anything has come back.
    pub(crate) fn is_answered(&self) -> bool {
        self.head_at.is_some()
    }

    /// Takes bytes; with `verify`, compares the body with its file, which begins at `offset` in a partial response.
    ///
    /// # Errors
    /// A word for what is wrong with the framing.
    pub(crate) fn take(
        &mut self,
        data: &[u8],
        verify: Option<(&Target, u64, &mut Vec<u8>)>,
    ) -> Result<(), &'static str> {
        self.heard = clock::now();
        self.head_at.get_or_insert(self.heard);
        let Self {
            reception,
            bytes,
            wrong,
            ..
        } = self;
        let taken = match verify {
            None => reception.take(data, |body| *bytes += body.len() as u64),
            Some((target, offset, scratch)) => {
                // The head is taken first, so that the status is known before the body is compared.
                let mut parts: Vec<u8> = Vec::new();
                if reception.in_head() {
                    let taken = reception.take(data, |body| parts.extend_from_slice(body));
                    check(target, reception.status, offset, (bytes, wrong), &parts, scratch);
                    taken
                } else {
                    let status = reception.status;
                    reception.take(data, |body| {
                        check(target, status, offset, (&mut *bytes, &mut *wrong), body, scratch);
                    })
                }
            }
        };
        if self.bytes > 0 {
            self.body_at.get_or_insert(self.heard);
        }
        taken
    }

    /// `count` body bytes were dropped unseen.
    pub(crate) fn dropped(&mut self, count: usize) {
        self.heard = clock::now();
        self.bytes += count as u64;
        self.body_at.get_or_insert(self.heard);
        self.reception.dropped(count as u64);
    }

    /// What is wrong with the complete response, if anything.
    pub(crate) fn defect(&self, target: &Target, verify: bool) -> Option<String> {
        let status = self.reception.status;
        if verify && self.wrong {
            return Some("corrupt".to_owned());
        }
        if verify && status == 200 && target.expected_length() != Some(self.bytes) {
            return Some("wrong_length".to_owned());
        }
        (!(200..400).contains(&status)).then(|| format!("http_{status}"))
    }

    /// Whether bytes came that do not belong there.
    pub(crate) fn is_wrong(&self) -> bool {
        self.wrong
    }

    /// How long the first byte of the body took, or of the response when it has none.
    pub(crate) fn first_byte(&self) -> Option<Duration> {
        self.body_at.or(self.head_at).map(|at| at - self.started)
    }

    /// This exchange as a record, times in microseconds; `begin` is the start of the run.
    pub(crate) fn record(&self, target: &Target, begin: Instant, error: Option<&str>) -> Value {
        let micros = |from: Instant, to: Instant| to.saturating_duration_since(from).as_secs_f64() * 1e6;
        let since = |at: Option<Instant>| at.map(|at| micros(self.started, at));
        json!({
            "target": target.name,
            "start_us": micros(begin, self.started),
            "head_us": since(self.head_at),
            "body_us": since(self.body_at),
            "done_us": micros(self.started, clock::now()),
            "status": self.reception.status,
            "bytes": self.bytes,
            "content_length": self.reception.length,
            "error": error,
            "verify_bad": self.wrong,
            "note": self.reception.note,
        })
    }
}

/// Compares body bytes with the file and counts them.
fn check(
    target: &Target,
    status: u16,
    offset: u64,
    (bytes, wrong): (&mut u64, &mut bool),
    data: &[u8],
    scratch: &mut Vec<u8>,
) {
    if matches!(status, 200 | 206) && !*wrong && !data.is_empty() {
        let from = *bytes + if status == 206 { offset } else { 0 };
        *wrong = !target.equals(from, data, scratch);
    }
    *bytes += data.len() as u64;
}
