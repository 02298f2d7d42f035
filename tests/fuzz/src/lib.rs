//! What the proxy reads from strangers, under fuzzing: request heads, caching directives, ranges, `Vary`, stored rows, dates; and from
//! media: the documents and headers of bundles.
//!
//! Each target is a plain function of bytes that panics when a property does not hold. libFuzzer drives it from
//! `src/bin/`; `tests/corpus.rs` replays everything that was ever kept, in each test run. How to fuzz: `tests/fuzz/README.md`.
//!
//! Deliberately absent: targets that only look for panics. Each says what must be true of its output.
#![expect(
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "to panic where a property does not hold is what a target is for"
)]

mod targets;

pub use targets::{
    bundle::bundle, cache_control::cache_control, http_text::http_text, range::range,
    request_head::request_head, stored::stored, vary::vary,
};

/// A target: it panics where a property does not hold.
pub type Target = fn(&[u8]);

/// Every target by the name of its corpus folder.
pub const TARGETS: [(&str, Target); 7] = [
    ("request_head", request_head),
    ("cache_control", cache_control),
    ("range", range),
    ("vary", vary),
    ("stored", stored),
    ("bundle", bundle),
    ("http_text", http_text),
];
