//! What leaves: the lab has no route to anywhere, so what a node wants from outside is led to the lab's host, and counted there.
//!
//! Nodes reach each other over the bridge without the host; what the test itself does in a node, it does inside of it. Whatever IP packet
//! arrives at the host was meant for somebody else: a name server, an origin, anybody.

use anyhow::{Context, Result};

use super::{HOST, Lab, Node};
use crate::command;

impl Lab {
    /// How many IP packets have arrived at the lab's host so far (RFC 4293, `ipIfStatsInReceives`).
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn arrived_at_host(&self) -> Result<u64> {
        let said = command::success("cat", self.on_host(&["cat", "/proc/net/snmp"])?)?;
        let mut lines = said.lines().filter_map(|line| line.strip_prefix("Ip: "));
        let names = lines.next().context("no names")?.split(' ');
        let mut values = names.zip(lines.next().context("no values")?.split(' '));
        let (_, value) = values
            .find(|(name, _)| *name == "InReceives")
            .context("no count")?;
        Ok(value.parse()?)
    }
}

impl Node<'_> {
    /// Whatever this node wants from outside goes to the lab's host from now on: names, and addresses that are not of the lab.
    ///
    /// # Errors
    /// When the node is down.
    pub fn lead_out_to_host(&self) -> Result<()> {
        self.ok(&["ip", "route", "replace", "default", "via", &HOST.to_string()])?;
        let names = format!("nameserver {HOST}\noptions timeout:1 attempts:1\n");
        self.put("/etc/resolv.conf", names.as_bytes(), 0o644)
    }
}
