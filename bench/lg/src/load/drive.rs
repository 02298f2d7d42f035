//! The loop: whose turn it is.

use std::{
    io,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde_json::Value;

use super::{
    Args,
    client::{Client, Memory, Reading, Step},
    link::{Destination, Link},
    poll::Poll,
    tally::Tally,
    target::Target,
};
use crate::clock;

/// What one read takes at most.
const BUFFER: usize = 2 * 1024 * 1024;
/// How long to wait for events where no clock has to be looked at.
const CALM: Duration = Duration::from_millis(200);
/// How often clocks are looked at where targets are timed.
const TICK: Duration = Duration::from_millis(1);
/// How often idle exchanges are looked for.
const SWEEP: Duration = Duration::from_secs(1);
/// Connections tried for one request.
const TRIES: usize = 3;

/// A run.
#[derive(Debug)]
pub(crate) struct Drive {
    targets: Vec<Target>,
    destination: Destination,
    reading: Reading,
    limit: u64,
    timeout: Duration,
    abort_after: Option<u64>,
    closes: bool,
    records: bool,
    duration: Option<Duration>,
    timed: bool,
    poll: Poll,
    clients: Vec<Client>,
    memory: Memory,
    tally: Tally,
    issued: u64,
    active: usize,
    begin: Instant,
    end: Instant,
}

impl Drive {
    /// Opens the connections, unless each request has one of its own.
    ///
    /// # Errors
    /// When the server does not take them.
    pub(crate) fn new(args: &Args, targets: Vec<Target>, destination: Destination) -> Result<Self> {
        let now = clock::now();
        let mut drive = Self {
            limit: args.limit(targets.len()),
            timed: targets.iter().any(Target::is_timed),
            targets,
            destination,
            reading: Reading {
                discard: args.discard && !args.verify,
                verify: args.verify,
                offset: args.offset(),
            },
            timeout: Duration::from_secs_f64(args.timeout),
            abort_after: args.abort_after,
            closes: args.close,
            records: args.detail,
            duration: args.duration.map(Duration::from_secs_f64),
            poll: Poll::new()?,
            clients: (0..args.conns).map(|_| Client::new()).collect(),
            memory: Memory {
                buffer: vec![0; BUFFER],
                scratch: Vec::new(),
            },
            tally: Tally::new(),
            issued: 0,
            active: 0,
            begin: now,
            end: now,
        };
        if !args.close {
            for index in 0..drive.clients.len() {
                drive
                    .open(index)
                    .with_context(|| format!("cannot connect to {}", args.connect))?;
            }
        }
        Ok(drive)
    }

    /// Runs to the end and returns the figures.
    ///
    /// # Errors
    /// When the server takes no connections any more.
    pub(crate) fn run(mut self) -> Result<Value> {
        let spent = clock::cpu();
        self.begin = clock::now();
        self.end = self.begin;
        for index in 0..self.clients.len() {
            self.next(index)?;
        }
        let deadline = self.duration.map(|duration| self.begin + duration);
        let mut ready = Vec::new();
        let mut swept = self.begin;
        while self.active > 0 {
            self.poll.wait(&mut ready, self.patience(deadline))?;
            for index in &ready {
                self.readable(*index)?;
            }
            let now = clock::now();
            if deadline.is_some_and(|deadline| now >= deadline) {
                self.cut(now);
                break;
            }
            if self.timed || now - swept > SWEEP {
                swept = now;
                self.sweep(now)?;
            }
        }
        Ok(self
            .tally
            .figures(self.end - self.begin, clock::cpu().saturating_sub(spent)))
    }

    /// How long nothing but an event matters.
    fn patience(&self, deadline: Option<Instant>) -> Duration {
        let calm = if self.timed { TICK } else { CALM };
        deadline.map_or(calm, |deadline| {
            calm.min(deadline.saturating_duration_since(clock::now()))
        })
    }

    /// Time is up: bodies under way count with the bytes they have brought, not as requests.
    fn cut(&mut self, now: Instant) {
        self.end = now;
        let under_way = self.clients.iter().filter_map(|client| client.exchange.as_ref());
        self.tally.bytes += under_way.map(|exchange| exchange.bytes).sum::<u64>();
    }

    /// Lets a client send the next request, if there is one; a timed one waits for its time.
    fn next(&mut self, index: usize) -> Result<()> {
        if self.issued >= self.limit {
            return Ok(());
        }
        let turn = self.issued;
        self.issued += 1;
        self.active += 1;
        let at = self.targets[self.target_of(turn)].at;
        if at > self.begin.elapsed() {
            self.clients[index].turn = Some(turn);
            self.clients[index].idle_until = Some(self.begin + at);
            return Ok(());
        }
        self.ask(index, turn)
    }

    fn target_of(&self, turn: u64) -> usize {
        usize::try_from(turn % self.targets.len() as u64).unwrap_or(0)
    }

    fn ask(&mut self, index: usize, turn: u64) -> Result<()> {
        let target = self.target_of(turn);
        let client = &mut self.clients[index];
        client.turn = None;
        client.begin(target);
        self.tally.requests += 1;
        self.send(index)
    }

    /// Sends the request of the exchange, on a new connection where there is none.
    fn send(&mut self, index: usize) -> Result<()> {
        let mut trouble = None;
        for _ in 0..TRIES {
            if self.clients[index].link.is_none()
                && let Err(error) = self.open(index)
            {
                trouble = Some(error);
                std::thread::sleep(Duration::from_millis(20));
                continue;
            }
            let client = &mut self.clients[index];
            let (Some(link), Some(exchange)) = (&mut client.link, &client.exchange) else {
                break;
            };
            match link.send(&self.targets[exchange.target].request) {
                Ok(()) => return Ok(()),
                Err(error) => trouble = Some(error),
            }
            self.tally.reconnects += 1;
            client.link = None;
        }
        match trouble {
            // A server that is away is a finding, not the end of the run.
            Some(error) => self.finish(index, Some(format!("connect_{:?}", error.kind()).to_lowercase())),
            None => Ok(()),
        }
    }

    fn open(&mut self, index: usize) -> io::Result<()> {
        let link = self.clients[index].open(&self.destination)?;
        self.poll.add(index, link)
    }

    /// Something has come on a client's connection.
    fn readable(&mut self, index: usize) -> Result<()> {
        if self.clients[index].exchange.is_none() {
            // An idle connection is readable when the server has closed it.
            self.clients[index].link = None;
            return Ok(());
        }
        loop {
            if self.clients[index].idle_until.is_some() {
                return Ok(());
            }
            match self.clients[index].read(&self.targets, self.reading, &mut self.memory) {
                Step::Nothing => return Ok(()),
                Step::Complete => return self.complete(index),
                Step::Broken(how) => return self.broken(index, &how),
                Step::Bytes => {}
            }
            if self.goes_away(index) {
                self.clients[index].link = None;
                return self.finish(index, Some("aborted".to_owned()));
            }
            self.hold(index)?;
            if !self.clients[index].link.as_ref().is_some_and(Link::buffers) {
                return Ok(());
            }
        }
    }

    fn goes_away(&self, index: usize) -> bool {
        let bytes = self.clients[index]
            .exchange
            .as_ref()
            .map_or(0, |exchange| exchange.bytes);
        self.abort_after.is_some_and(|limit| bytes >= limit)
    }

    /// A client that reads at a pace looks away until its next bytes are due.
    fn hold(&mut self, index: usize) -> Result<()> {
        let client = &mut self.clients[index];
        let due = client.due(&self.targets).filter(|due| *due > clock::now());
        if let (Some(due), Some(link)) = (due, &client.link) {
            client.idle_until = Some(due);
            self.poll.watch(index, link, false)?;
        }
        Ok(())
    }

    fn complete(&mut self, index: usize) -> Result<()> {
        let client = &mut self.clients[index];
        client.is_new = false;
        let closes = client
            .exchange
            .as_ref()
            .is_none_or(|exchange| exchange.reception.close || exchange.reception.ends_with_connection());
        if self.closes || closes {
            client.link = None;
        }
        let defect = self.clients[index]
            .exchange
            .as_ref()
            .and_then(|exchange| exchange.defect(&self.targets[exchange.target], self.reading.verify));
        self.finish(index, defect)
    }

    /// A kept connection that was closed before any answer is replaced; everything else is a failure.
    fn broken(&mut self, index: usize, how: &str) -> Result<()> {
        let client = &mut self.clients[index];
        client.link = None;
        let unanswered = client
            .exchange
            .as_ref()
            .is_some_and(|exchange| !exchange.is_answered());
        if !client.is_new && unanswered {
            self.tally.reconnects += 1;
            return self.send(index);
        }
        self.finish(index, Some(how.to_owned()))
    }

    /// The exchange has ended; the client goes on with the next.
    fn finish(&mut self, index: usize, error: Option<String>) -> Result<()> {
        self.end = clock::now();
        self.active -= 1;
        if let Some(exchange) = self.clients[index].finish() {
            let recorded = self.records.then_some(self.begin);
            self.tally
                .add(&exchange, &self.targets[exchange.target], error, recorded);
            self.clients[index].keep(exchange);
        }
        if self
            .duration
            .is_some_and(|duration| self.begin + duration <= self.end)
        {
            return Ok(());
        }
        self.next(index)
    }

    /// Looks at the clocks: whose turn has come, who reads on, who goes away, who has heard nothing for too long.
    fn sweep(&mut self, now: Instant) -> Result<()> {
        for index in 0..self.clients.len() {
            let client = &mut self.clients[index];
            if client.idle_until.is_some_and(|until| until <= now) {
                client.idle_until = None;
                if let Some(turn) = client.turn {
                    self.ask(index, turn)?;
                } else {
                    self.resume(index)?;
                }
            }
            let Some(exchange) = &self.clients[index].exchange else {
                continue;
            };
            let stop = self.targets[exchange.target].stop;
            let error = if stop.is_some_and(|stop| exchange.started + stop <= now) {
                "aborted"
            } else if now.saturating_duration_since(exchange.heard) > self.timeout {
                "timeout"
            } else {
                continue;
            };
            self.clients[index].link = None;
            self.finish(index, Some(error.to_owned()))?;
        }
        Ok(())
    }

    /// A client that reads at a pace looks at its connection again.
    fn resume(&mut self, index: usize) -> Result<()> {
        if let Some(link) = &self.clients[index].link {
            self.poll.watch(index, link, true)?;
        }
        self.readable(index)
    }
}
