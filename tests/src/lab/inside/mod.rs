//! The parts of the lab that run inside its namespaces, all in the one program `lab`.
//!
//! `host` is PID 1 of the lab and does nothing but reap; `supervise`, its child, does the work. `node` prepares one node and becomes its
//! `init`, PID 1 there. `reboot` and `poweroff` are what the commands of those names in a node do.
//!
//! Orders come to the supervisor as JSON lines on stdin, reports leave it as JSON lines on stdout; what is for people goes to stderr.

mod init;
mod node;
mod reap;
mod supervisor;

use std::{io::Write, path::Path};

use anyhow::{Context, Result, bail};
use rustix::system::{RebootCommand, reboot};
use serde::{Deserialize, Serialize};

use super::{plan::Plan, watch::Ended};

/// What the test wants of the supervisor.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Order {
    /// Power a node on.
    Boot {
        /// Its name.
        node: String,
    },
}

/// What the supervisor tells the test.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Report {
    /// Network and disks are there.
    Ready,
    /// A node has started.
    Booted {
        /// Its name.
        node: String,
        /// Its init, in the numbers of the lab.
        pid: u32,
    },
    /// A node has ended.
    Ended {
        /// Its name.
        node: String,
        /// In which way.
        how: Ended,
    },
}

/// The exit code of the program `lab` when a part of it could not do its work.
pub const FAULT: u8 = 70;

/// Writes one JSON line.
pub(crate) fn send(pipe: &mut impl Write, message: &impl Serialize) -> Result<()> {
    let mut line = serde_json::to_vec(message).context("cannot serialise")?;
    line.push(b'\n');
    pipe.write_all(&line)
        .and_then(|()| pipe.flush())
        .context("the other end has gone")
}

/// The program `lab`.
///
/// # Errors
/// Whatever keeps a part from doing its work; it ends up in the lab's logs.
pub fn main(args: &[String]) -> Result<()> {
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words[..] {
        ["host", plan] => supervisor::stand_above(plan),
        ["supervise", plan] => supervisor::run(Plan::load(Path::new(plan))?),
        ["node", plan, name] => node::run(&Plan::load(Path::new(plan))?, name),
        ["init"] => init::run(),
        // In a PID namespace these end its init, and whoever waits for it sees by which signal.
        ["reboot"] => reboot(RebootCommand::Restart).context("cannot reboot"),
        ["poweroff"] => reboot(RebootCommand::PowerOff).context("cannot power off"),
        _ => bail!("expected: lab host PLAN | supervise PLAN | node PLAN NAME | init | reboot | poweroff"),
    }
}
