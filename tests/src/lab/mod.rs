//! A cluster of machines on this machine.
//!
//! ```text
//! test process
//! └ unshare -n -m -p                 the lab: bridge br0 10.99.0.1/24, nothing of it reaches the machine
//!   └ lab host                       PID 1 there; ends with `lab supervise`, its child, which ends when the test's end of its
//!     │                              stdin closes; everything ends with it
//!     ├ unshare -m -u -n -p          node n1: 10.99.0.11, overlay root, own hostname, PIDs, /proc, /run
//!     │ └ lab init                   PID 1 there: sshd, boot scripts, reaps orphans
//!     └ unshare -m -u -n -p          node n2 …
//! ```
//!
//! ```no_run
//! use integration_tests::lab::{Lab, NodeSpec};
//! # fn main() -> anyhow::Result<()> {
//! let lab = Lab::start(&[NodeSpec::new("core"), NodeSpec::new("n1"), NodeSpec::new("n2").disk_bytes(24 << 20)])?;
//! let n1 = lab.node("n1")?;
//! n1.put("/etc/kato/node.toml", b"[node]\n", 0o644)?;
//! n1.exec(&["hostname"])?;                     // directly, argv as it stands
//! n1.ssh(&["hostname"])?;                      // through its sshd, as the lab's user would
//! lab.node("core")?.exec(&["ssh", "n1", "hostname"])?; // nodes know and trust each other, as root
//! n1.cut()?;                                   // the network cable
//! n1.crash()?;                                 // the power cable
//! # Ok(()) }
//! ```
//!
//! What a node is: the machine's own root, read-only, below a writable layer of its own (a tmpfs; [`NodeSpec::disk_bytes`] makes it small, so
//! that `ENOSPC` is real). Every program of the machine is there, and the programs of this workspace are at their absolute paths
//! ([`crate::binaries::built`]). The layer outlives reboots and crashes of the node and ends with the lab.
//!
//! At boot, `init` starts every executable of [`BOOT_FOLDER`] in the order of names, which stands for enabled units. `reboot` and
//! `poweroff` in a node are real `reboot(2)` calls.
//!
//! The test itself stays outside: [`Lab::listen`] gives it a listener inside, for origins that run in the test process, and
//! [`Node::connect`] a connection to a port of a node.
//!
//! Deliberately absent: systemd in a node, slow links (`tc netem` is not everywhere), and a route to the outside.
//!
//! Needs root and Debian's `openssh-server`, `iproute2` and `util-linux`: such tests stand in a module `as_root`.

mod background;
mod enter;
pub mod inside;
mod keys;
mod node;
mod plan;
mod watch;
mod way_out;

use std::{
    fs,
    net::{Ipv4Addr, SocketAddrV4, TcpListener},
    path::Path,
    process::{Child, ChildStdin, Output, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

pub use self::{background::Background, node::Node, plan::NodeSpec, watch::Ended};
use self::{enter::Inside, plan::Plan, watch::Watch};
use crate::{binaries, command, wait};

/// The address of the lab's own side of the bridge, where the test's servers listen.
pub const HOST: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);

/// Executables that a node starts at each boot.
pub const BOOT_FOLDER: &str = "/etc/lab/boot.d";

/// How long a command may take unless the caller says otherwise.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running cluster. Dropping it ends every process and mount of it.
#[derive(Debug)]
pub struct Lab {
    plan: Plan,
    /// `unshare`, whose one child is the supervisor.
    outer: Child,
    /// The supervisor ends when this closes.
    orders: Mutex<Option<ChildStdin>>,
    watch: Watch,
    /// The supervisor as this process sees it.
    inside: Inside,
    /// Keys, logs, mount points. Removed last.
    folder: TempDir,
}

impl Lab {
    /// Starts the nodes and waits until each answers over ssh. Their addresses are 10.99.0.11, .12, … in the order given.
    ///
    /// # Errors
    /// When this is not root, a package of `tests/packages.txt` is missing, or a node does not come up; its log is in the message.
    pub fn start(specs: &[NodeSpec]) -> Result<Self> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "the lab makes namespaces and needs root; its tests stand in a module `as_root`"
        );
        let folder = tempfile::Builder::new()
            .prefix("kato-lab-")
            .tempdir()
            .context("no temporary folder")?;
        let plan = Plan::new(folder.path(), specs)?;
        keys::make(&plan)?;
        plan.save()?;
        let lab = Self::supervise(plan, folder)?;
        for spec in specs {
            lab.node(spec.name())?
                .wait_reachable()
                .with_context(|| lab.logs())?;
        }
        Ok(lab)
    }

    fn supervise(plan: Plan, folder: TempDir) -> Result<Self> {
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(folder.path().join("supervisor.log"))
            .context("cannot open the supervisor's log")?;
        let mut outer = command::new("unshare")
            .args([
                "--net",
                "--mount",
                "--pid",
                "--fork",
                "--kill-child",
                "--mount-proc",
            ])
            .arg(binaries::built("lab")?)
            .arg("host")
            .arg(plan.file())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .context("cannot start unshare")?;
        let orders = Mutex::new(outer.stdin.take());
        let watch = Watch::start(outer.stdout.take().context("the supervisor has no stdout")?);
        let supervisor = watch
            .first(PATIENCE)
            .and_then(|()| enter::only_child(outer.id()).context("the supervisor has ended"));
        let mut lab = Self {
            plan,
            outer,
            orders,
            watch,
            inside: Inside::default(),
            folder,
        };
        lab.inside = Inside::new(supervisor.with_context(|| lab.logs())?);
        Ok(lab)
    }

    /// The node called `name`.
    ///
    /// # Errors
    /// When the lab has no such node.
    pub fn node(&self, name: &str) -> Result<Node<'_>> {
        let place = self
            .plan
            .node(name)
            .with_context(|| format!("the lab has no node `{name}`"))?;
        Ok(Node::new(self, place))
    }

    /// Runs `argv` on the lab's own side: the machine's root as it is, the lab's network and processes.
    ///
    /// # Errors
    /// When it cannot start or does not end within a minute.
    pub fn on_host(&self, argv: &[&str]) -> Result<Output> {
        command::run(self.inside.host(argv), PATIENCE, &[])
    }

    /// Starts `argv` on the lab's own side; it ends when the answer is dropped. stderr goes to [`Background::log`].
    ///
    /// # Errors
    /// When it cannot start.
    pub fn spawn_on_host(&self, argv: &[&str]) -> Result<Background> {
        Background::start(self.inside.host(argv), self.folder.path())
    }

    /// A listener at [`HOST`] inside the lab, for a server that runs in the test process. Port 0 asks for a free one.
    ///
    /// # Errors
    /// When the port is taken.
    pub fn listen(&self, port: u16) -> Result<TcpListener> {
        let address = SocketAddrV4::new(HOST, port);
        self.inside
            .in_host_network(move || TcpListener::bind(address))
            .with_context(|| format!("cannot listen at {address} in the lab"))
    }

    /// A folder on the machine for this test's files; it ends with the lab. Nodes see it, read-only, only as it was when they booted.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What the supervisor and the nodes have said so far, for the message of a failure.
    pub fn logs(&self) -> String {
        let names = std::iter::once("supervisor").chain(self.plan.nodes().map(plan::Place::name));
        let read = |name| {
            let log = fs::read_to_string(self.folder.path().join(format!("{name}.log"))).unwrap_or_default();
            format!("--- {name}.log\n{log}")
        };
        names.map(read).collect()
    }

    fn order(&self, order: &inside::Order) -> Result<()> {
        inside::send(self.orders_pipe().as_mut().context("the lab is ending")?, order)
    }

    fn orders_pipe(&self) -> MutexGuard<'_, Option<ChildStdin>> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Lab {
    /// The supervisor is PID 1 of the lab: when it ends, the kernel ends everything in it, mounts and links included.
    fn drop(&mut self) {
        drop(self.orders_pipe().take());
        let gone = wait::until("end of the lab", Duration::from_secs(10), || {
            self.outer.try_wait().transpose()
        });
        if gone.is_err() {
            // `--kill-child` takes the supervisor along.
            self.outer.kill().ok();
            self.outer.wait().ok();
        }
    }
}
