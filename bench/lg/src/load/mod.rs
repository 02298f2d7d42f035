//! `lg load`: N clients, each with one connection and one request at a time, on one thread.
//!
//! A client asks, reads the response to its end, and asks for the next target of the list, until the number, the time or the list is used up. A
//! request that found its kept connection closed is sent once more on a new one; every other failure counts and names itself.
//!
//! A line of the list may say when its client begins, how fast it reads and when it goes away: with as many connections as lines, the list is a
//! script (followers of a slow leader, a leader that is killed).
//!
//! | Module | What |
//! |---|---|
//! | [`reception`] | the bytes of one response; pure |
//! | [`exchange`] | a request, its response, its times |
//! | [`link`] | a connection, plain or TLS |
//! | [`target`] | what is asked for, and what must come |
//! | [`client`], [`drive`], [`poll`] | who reads next |
//! | [`histogram`], [`tally`] | the figures |

mod client;
mod drive;
mod exchange;
mod histogram;
mod link;
mod poll;
mod reception;
mod tally;
mod target;

use std::{net::SocketAddr, path::PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use self::{drive::Drive, link::Destination, target::Target};

/// What to ask, of whom, how often. Sizes in bytes, times in seconds.
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "switches of a command line")]
pub(crate) struct Args {
    /// Where the server listens.
    #[arg(long)]
    connect: SocketAddr,
    /// The `Host` field, and the name in the server's certificate (without its port).
    #[arg(long, default_value = "127.0.0.1")]
    host: String,
    /// TLS, trusting the authority in this PEM file.
    #[arg(long)]
    tls: Option<PathBuf>,
    /// A request target; may be repeated.
    #[arg(long)]
    target: Vec<String>,
    /// A file of targets, one a line: TARGET [TAB FILE [TAB at=S,pace=BYTES,stop=S]].
    #[arg(long)]
    targets: Option<PathBuf>,
    /// Connections.
    #[arg(long, default_value_t = 1)]
    conns: usize,
    /// Requests in all; without a duration, one.
    #[arg(long)]
    requests: Option<u64>,
    /// Seconds.
    #[arg(long)]
    duration: Option<f64>,
    /// Every target once.
    #[arg(long)]
    once: bool,
    /// A connection for each request.
    #[arg(long)]
    close: bool,
    /// `FIRST-LAST`, sent as a byte range.
    #[arg(long)]
    range: Option<String>,
    /// Drop bodies in the kernel instead of copying them.
    #[arg(long)]
    discard: bool,
    /// Compare bodies with the files in the list.
    #[arg(long)]
    verify: bool,
    /// Close the connection once that many bytes of a body have come.
    #[arg(long)]
    abort_after: Option<u64>,
    /// A request that hears nothing for that long has failed.
    #[arg(long, default_value_t = 120.0)]
    timeout: f64,
    /// Another header field, `Name: value`; may be repeated.
    #[arg(long)]
    header: Vec<String>,
    /// A record of every request.
    #[arg(long)]
    detail: bool,
}

impl Args {
    /// Header fields of every request.
    fn fields(&self) -> String {
        let range = self.range.iter().map(|range| format!("Range: bytes={range}"));
        let close = self.close.then(|| "Connection: close".to_owned());
        let lines = self.header.iter().cloned().chain(range).chain(close);
        lines.map(|line| line + "\r\n").collect()
    }

    /// The first byte of the range.
    fn offset(&self) -> u64 {
        let first = self.range.as_ref().and_then(|range| range.split_once('-'));
        first.and_then(|(first, _)| first.parse().ok()).unwrap_or(0)
    }

    fn limit(&self, targets: usize) -> u64 {
        if self.once {
            targets as u64
        } else {
            self.requests
                .unwrap_or(if self.duration.is_some() { u64::MAX } else { 1 })
        }
    }
}

/// Asks, and returns the figures.
///
/// # Errors
/// When there is nothing to ask for, a file cannot be read, or the server does not take connections.
pub(crate) fn run(args: &Args) -> Result<Value> {
    let mut lines = args.target.clone();
    if let Some(path) = &args.targets {
        lines.extend(target::lines(path)?);
    }
    ensure!(
        !lines.is_empty(),
        "nothing to ask for; give --target or --targets"
    );
    let fields = args.fields();
    let targets = lines
        .iter()
        .map(|line| {
            Target::parse(line, &args.host, &fields, args.verify).with_context(|| format!("`{line}`"))
        })
        .collect::<Result<Vec<_>>>()?;
    let name = args
        .host
        .rsplit_once(':')
        .map_or(args.host.as_str(), |(name, _)| name);
    let destination = Destination::new(args.connect, args.tls.as_deref(), name)?;
    Drive::new(args, targets, destination)?.run()
}
