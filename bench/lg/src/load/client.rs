//! One client: a connection and the exchange on it.

use std::{
    io::{self, ErrorKind},
    time::{Duration, Instant},
};

use super::{
    exchange::Exchange,
    link::{Destination, Link},
    reception::Reception,
    target::Target,
};

/// What is read while the head is awaited: the rest of the body can then be dropped unseen.
const HEAD: usize = 4 * 1024;
/// What a client that reads at a pace takes at once.
const SIP: usize = 64 * 1024;

/// A client.
#[derive(Debug)]
pub(crate) struct Client {
    /// Its connection.
    pub(crate) link: Option<Link>,
    /// Whether no response has been read on this connection.
    pub(crate) is_new: bool,
    /// What it waits for.
    pub(crate) exchange: Option<Exchange>,
    /// It does nothing before this time: its turn to ask has not come, or it reads at a pace.
    pub(crate) idle_until: Option<Instant>,
    /// The number of the request that it will send when its turn comes.
    pub(crate) turn: Option<u64>,
    /// Memory for the next response.
    spare: Option<Reception>,
}

/// How bodies are read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reading {
    /// Drop them in the kernel.
    pub(crate) discard: bool,
    /// Compare them with their files.
    pub(crate) verify: bool,
    /// The first byte of the range that is asked for.
    pub(crate) offset: u64,
}

/// Memory that all clients share.
#[derive(Debug)]
pub(crate) struct Memory {
    /// What is read.
    pub(crate) buffer: Vec<u8>,
    /// What should have been read.
    pub(crate) scratch: Vec<u8>,
}

/// What one read led to.
#[derive(Debug)]
pub(crate) enum Step {
    /// Nothing is there now.
    Nothing,
    /// Bytes came; more may follow.
    Bytes,
    /// The response is complete.
    Complete,
    /// The exchange has failed, and how.
    Broken(String),
}

impl Client {
    /// Without a connection.
    pub(crate) fn new() -> Self {
        Self {
            link: None,
            is_new: true,
            exchange: None,
            idle_until: None,
            turn: None,
            spare: None,
        }
    }

    /// Opens the connection.
    ///
    /// # Errors
    /// When the server does not take it.
    pub(crate) fn open(&mut self, destination: &Destination) -> io::Result<&Link> {
        self.is_new = true;
        Ok(self.link.insert(destination.open()?))
    }

    /// Begins to wait for target number `target`.
    pub(crate) fn begin(&mut self, target: usize) {
        let reception = self.spare.take().unwrap_or_else(Reception::new);
        self.exchange = Some(Exchange::new(target, reception));
    }

    /// The exchange that has ended, if there was one.
    pub(crate) fn finish(&mut self) -> Option<Exchange> {
        self.idle_until = None;
        self.exchange.take()
    }

    /// Keeps the memory of an exchange for the next.
    pub(crate) fn keep(&mut self, exchange: Exchange) {
        self.spare = Some(exchange.reception);
    }

    /// Reads once.
    pub(crate) fn read(&mut self, targets: &[Target], reading: Reading, memory: &mut Memory) -> Step {
        let (Some(link), Some(exchange)) = (&mut self.link, &mut self.exchange) else {
            return Step::Nothing;
        };
        let target = &targets[exchange.target];
        let droppable = exchange.reception.droppable().filter(|_| reading.discard);
        let room = if exchange.reception.in_head() {
            HEAD
        } else if target.pace > 0 {
            SIP
        } else {
            memory.buffer.len()
        };
        let read = match droppable {
            Some(left) => {
                let room = usize::try_from(left).map_or(room, |left| left.min(room));
                link.drop_bytes(&mut memory.buffer[..room])
            }
            None => link.read(&mut memory.buffer[..room]),
        };
        let count = match read {
            Ok(0) => return ended(exchange),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Step::Nothing,
            Err(error) => return Step::Broken(format!("recv_{:?}", error.kind()).to_lowercase()),
        };
        let taken = if droppable.is_some() {
            exchange.dropped(count);
            Ok(())
        } else {
            let verify = reading
                .verify
                .then_some((target, reading.offset, &mut memory.scratch));
            exchange.take(&memory.buffer[..count], verify)
        };
        match taken {
            Err(word) => Step::Broken(word.to_owned()),
            Ok(()) if exchange.reception.is_complete() => Step::Complete,
            Ok(()) => Step::Bytes,
        }
    }

    /// When it may read on, for its pace's sake.
    pub(crate) fn due(&self, targets: &[Target]) -> Option<Instant> {
        let exchange = self.exchange.as_ref()?;
        let pace = targets[exchange.target].pace;
        (pace > 0).then(|| exchange.started + Duration::from_micros(exchange.bytes * 1_000_000 / pace))
    }
}

/// The server has closed the connection.
fn ended(exchange: &Exchange) -> Step {
    if exchange.reception.ends_with_connection() {
        Step::Complete
    } else {
        Step::Broken("eof".to_owned())
    }
}
