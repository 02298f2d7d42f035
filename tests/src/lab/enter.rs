//! Ways into the lab's namespaces from outside.
//!
//! Programs go in by `nsenter`; each level is tied to its parent by a parent-death signal, so that killing the outermost process (a deadline, a
//! dropped [`super::Background`]) kills the program inside. Sockets come out: a thread enters the network namespace, makes the socket
//! and ends; the socket stays where it was made.

use std::{fs, io, os::fd::AsFd, path::PathBuf, process::Command, thread};

use anyhow::{Context, Result};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::command;

/// Kills a program when whoever waits for it has died.
const TIED: [&str; 4] = ["setpriv", "--pdeathsig", "KILL", "--"];

/// The supervisor's process, as seen from the test.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Inside {
    supervisor: u32,
}

impl Inside {
    pub(crate) fn new(supervisor: u32) -> Self {
        Self { supervisor }
    }

    /// `argv` on the lab's own side.
    pub(crate) fn host(self, argv: &[&str]) -> Command {
        let mut command = command::new(TIED[0]);
        let target = self.supervisor.to_string();
        command
            .args(&TIED[1..])
            .args([
                "nsenter", "--target", &target, "--net", "--mount", "--pid", "--root", "--wd", "--",
            ])
            .args(TIED)
            .args(argv);
        command
    }

    /// `argv` in a node whose init has the number `pid` inside the lab.
    pub(crate) fn node(self, pid: u32, argv: &[&str]) -> Command {
        let target = pid.to_string();
        let mut words = vec![
            "nsenter", "--target", &target, "--net", "--mount", "--pid", "--uts", "--root", "--wd", "--",
        ];
        words.extend(TIED);
        words.extend(argv);
        self.host(&words)
    }

    /// Makes something, such as a socket, in the network of the lab's own side.
    pub(crate) fn in_host_network<T: Send + 'static>(
        self,
        make: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T> {
        in_network(format!("/proc/{}/ns/net", self.supervisor), make)
    }

    /// Makes something, such as a connection, in the network of a node.
    pub(crate) fn in_node_network<T: Send + 'static>(
        self,
        pid: u32,
        make: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T> {
        in_network(format!("{}/ns/net", self.process(pid)), make)
    }

    /// The root of a node as a path of the machine.
    pub(crate) fn node_root(self, pid: u32) -> PathBuf {
        PathBuf::from(format!("{}/root", self.process(pid)))
    }

    /// The lab's own `/proc`, seen through the supervisor's root, speaks the lab's process numbers.
    fn process(self, pid: u32) -> String {
        format!("/proc/{}/root/proc/{pid}", self.supervisor)
    }
}

fn in_network<T: Send + 'static>(
    namespace: String,
    make: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T> {
    let mover = thread::spawn(move || {
        let namespace = fs::File::open(namespace)?;
        // Only this thread moves, and it ends with this closure.
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        make()
    });
    mover
        .join()
        .ok()
        .context("the thread in the lab's network panicked")?
        .context("in the lab's network")
}

/// The child of `parent`, for programs such as `unshare --fork` that have exactly one.
pub(crate) fn only_child(parent: u32) -> Option<u32> {
    let processes = fs::read_dir("/proc").ok()?;
    processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .find(|pid| parent_of(*pid) == Some(parent))
}

fn parent_of(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may itself hold brackets and blanks; behind it come the state and the parent.
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_is_found_by_its_parent() {
        let mut child = command::new("sleep").arg("600").spawn().unwrap();
        assert_eq!(parent_of(child.id()), Some(std::process::id()));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
