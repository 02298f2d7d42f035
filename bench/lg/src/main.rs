//! `lg`: the load generator and the misbehaving origin of the benchmarks.
//!
//! | Command | In one line |
//! |---|---|
//! | `lg load` | many connections on one thread: latencies, first bytes, exact bytes; figures as one JSON document on stdout |
//! | `lg origin` | files with validators and ranges, counted as they leave, at a chosen rate, with faults on request |
//!
//! One thread and one epoll set, because the generator has one CPU of its own and must never be what is measured: some 100,000 requests a second.
//! Bodies nobody looks at are dropped in the kernel (`MSG_TRUNC`).
//!
//! Deliberately absent: HTTP/2, open-loop rates, name resolution. TLS is here (rustls, as in the proxy) and not left to `wrk`, so that latencies,
//! first bytes and verified bodies mean the same with and without it.
#![expect(
    clippy::print_stdout,
    reason = "a tool: its figures on stdout are its product"
)]

mod clock;
mod load;
mod origin;

use clap::{Parser, Subcommand};

/// Load generator and misbehaving origin of the benchmarks.
#[derive(Debug, Parser)]
#[command(name = "lg")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Asks, measures, prints one JSON document.
    Load(load::Args),
    /// Serves files until it is killed.
    Origin(origin::Args),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Load(args) => {
            println!("{}", load::run(&args)?);
            Ok(())
        }
        Command::Origin(args) => origin::run(&args),
    }
}
