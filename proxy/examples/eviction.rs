//! A trace through the store's eviction policy and through its yardsticks: hit ratios, side by side.
//!
//! Lines `KEY SIZE` (a number, and bytes) on stdin, in the order of requests; sizes of the cache in bytes as arguments; one JSON document on
//! stdout. `cargo xtask bench -- hits` feeds it the package trace of `bench/traces`.
#![expect(clippy::print_stdout, reason = "its figures on stdout are its product")]

use std::io::{self, BufRead, Error, ErrorKind};

use kato_proxy::store::eviction::{Fifo, Lru, Policy, S3Fifo, Tally, replay};
use serde_json::{Value, json};

type Trace = Vec<(u64, u64)>;

fn main() -> io::Result<()> {
    let trace = io::stdin()
        .lock()
        .lines()
        .map(|line| request(&line?))
        .collect::<io::Result<Trace>>()?;
    let mut rows = Vec::new();
    for argument in std::env::args().skip(1) {
        let capacity = argument
            .parse()
            .map_err(|error| Error::new(ErrorKind::InvalidInput, error))?;
        rows.push(json!({
            "capacity": capacity,
            "s3-fifo": run(S3Fifo::default(), capacity, &trace),
            "lru": run(Lru::default(), capacity, &trace),
            "fifo": run(Fifo::default(), capacity, &trace),
        }));
    }
    println!("{}", json!({"requests": trace.len(), "rows": rows}));
    Ok(())
}

/// One line of the trace.
fn request(line: &str) -> io::Result<(u64, u64)> {
    let wrong = || Error::new(ErrorKind::InvalidData, format!("`{line}` is not KEY SIZE"));
    let (key, size) = line.split_once(' ').ok_or_else(wrong)?;
    match (key.parse(), size.parse()) {
        (Ok(key), Ok(size)) => Ok((key, size)),
        _ => Err(wrong()),
    }
}

fn run(mut policy: impl Policy<u64>, capacity: u64, trace: &Trace) -> Value {
    let tally: Tally = replay(&mut policy, capacity, trace.iter().copied());
    json!({
        "hit_ratio": tally.hit_ratio(),
        "byte_hit_ratio": tally.byte_hit_ratio(),
        "evictions": tally.evictions,
    })
}
