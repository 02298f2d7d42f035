//! `lg origin`: an origin server that counts what it sends as it leaves, sends at a chosen rate, and misbehaves on request.
//!
//! `/u/TOKEN/rest` and `/c/OPTIONS/rest` are the file `ROOT/rest`: a new token is a new cold resource with known bytes. OPTIONS is
//! `TOKEN[.name-value]…`, made of characters that no proxy escapes; see [`fault::Faults`].
//!
//! | Control | |
//! |---|---|
//! | `/__stats` | requests, bytes and a log of every request, as JSON |
//! | `/__reset` | forgets counters and log |
//! | `/__rate/N` | all connections together share N bytes per second; 0 is no limit |
//!
//! One thread a connection: the origin has no need to be fast, its timing has to be simple. Deliberately absent: TLS, HTTP/2, directories.

mod answer;
mod fault;
mod ledger;
mod link;
mod request;

use std::{
    io::{self, BufReader},
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    sync::Arc,
    thread,
};

use anyhow::{Context, Result};

use self::{answer::Connection, fault::Fired, ledger::Ledger, link::SharedLink, request::Request};

/// Stack of a connection's thread, in bytes: there may be thousands.
const STACK: usize = 256 * 1024;

/// Where to listen and what to serve.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The address to listen on.
    #[arg(long)]
    listen: SocketAddr,
    /// The folder of the files.
    #[arg(long)]
    root: PathBuf,
    /// Bytes per second of all connections together; 0 is no limit.
    #[arg(long, default_value_t = 0)]
    rate: u64,
}

/// What all connections share.
#[derive(Debug)]
struct Origin {
    root: PathBuf,
    ledger: Ledger,
    link: SharedLink,
    fired: Fired,
}

/// Serves for ever.
///
/// # Errors
/// When the address cannot be bound or a thread cannot be started.
pub(crate) fn run(args: &Args) -> Result<()> {
    let listener =
        TcpListener::bind(args.listen).with_context(|| format!("cannot listen on {}", args.listen))?;
    let origin = Arc::new(Origin {
        root: args.root.clone(),
        ledger: Ledger::new(),
        link: SharedLink::new(args.rate),
        fired: Fired::default(),
    });
    for socket in listener.incoming() {
        let Ok(socket) = socket else {
            continue;
        };
        let origin = Arc::clone(&origin);
        // A client that goes away ends its thread with an error that nobody needs to hear of.
        thread::Builder::new()
            .stack_size(STACK)
            .spawn(move || serve(&origin, socket).ok())?;
    }
    Ok(())
}

/// Serves one connection until it is closed.
fn serve(origin: &Origin, socket: TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let mut reader = BufReader::new(socket.try_clone()?);
    let mut connection = Connection::new(origin, socket);
    while let Some(request) = Request::read(&mut reader)? {
        let goes_on = match request.path.strip_prefix("/__") {
            Some(command) => connection.document(&control(origin, command))?,
            None => connection.answer(&request)?,
        };
        if !goes_on || !request.keep_alive {
            break;
        }
    }
    Ok(())
}

fn control(origin: &Origin, command: &str) -> String {
    match command {
        "stats" => return origin.ledger.document().to_string(),
        "reset" => origin.ledger.reset(),
        _ => {
            if let Some(rate) = command.strip_prefix("rate/").and_then(|rate| rate.parse().ok()) {
                origin.link.set_rate(rate);
            }
        }
    }
    "{}".to_owned()
}
