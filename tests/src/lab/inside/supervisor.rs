//! The lab's own side: bridge and disks, then one thread for each node that runs.
//!
//! It ends when its stdin closes, that is when the test drops the lab or dies in whatever way; PID 1 ends with it, and the kernel
//! then ends everything else. Nothing has to be cleaned up, because nothing exists outside of the namespaces.

use std::{
    io::{self, BufRead, BufReader, Write},
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Child, ExitStatus, Stdio},
    sync::Arc,
    thread,
};

use anyhow::{Context, Result};
use kato_shared::durable;

use super::{Order, Report, reap, send};
use crate::{
    command,
    lab::{
        HOST, enter,
        plan::{Place, Plan},
        watch::Ended,
    },
};

/// PID 1 of the lab: starts [`run`] as a process of its own, reaps, and ends with it.
pub(crate) fn stand_above(plan: &str) -> Result<()> {
    let program = std::env::current_exe().context("the running program has no path")?;
    let supervisor = command::new(program)
        .args(["supervise", plan])
        .stdin(Stdio::inherit())
        .spawn()
        .context("cannot start the supervisor")?;
    reap::until_end_of(&supervisor)
}

/// Prepares, boots every node, and follows orders until stdin closes.
pub(crate) fn run(plan: Plan) -> Result<()> {
    prepare(&plan)?;
    send(&mut io::stdout(), &Report::Ready)?;
    let plan = Arc::new(plan);
    for place in plan.nodes() {
        keep_up(&plan, place.clone());
    }
    for line in io::stdin().lock().lines() {
        let line = line.context("cannot read orders")?;
        let Order::Boot { node } =
            serde_json::from_str(&line).with_context(|| format!("`{line}` is no order"))?;
        let place = plan
            .node(&node)
            .with_context(|| format!("the lab has no node `{node}`"))?;
        keep_up(&plan, place.clone());
    }
    Ok(())
}

fn prepare(plan: &Plan) -> Result<()> {
    command::ok(&["ip", "link", "set", "lo", "up"])?;
    command::ok(&["ip", "link", "add", "br0", "type", "bridge"])?;
    command::ok(&["ip", "addr", "add", &format!("{HOST}/24"), "dev", "br0"])?;
    command::ok(&["ip", "link", "set", "br0", "up"])?;
    for place in plan.nodes() {
        let layer = plan.node_folder(place).join("layer");
        durable::create_folder(&layer).context("cannot make a folder")?;
        // A tmpfs even where the disk could do: an overlay cannot have its writable layer on another overlay, which is what the root
        // of a container is.
        let size = place
            .disk_bytes()
            .map_or_else(|| "size=75%".to_owned(), |bytes| format!("size={bytes}"));
        command::ok(&["mount", "-t", "tmpfs", "-o", &size, "lab", text(&layer)?])?;
        for folder in ["upper", "work"] {
            durable::create_folder(&layer.join(folder)).context("cannot make a folder")?;
        }
        durable::create_folder(&plan.node_folder(place).join("root")).context("cannot make a folder")?;
    }
    Ok(())
}

/// Boots a node, and again after each reboot, on a thread of its own.
fn keep_up(plan: &Arc<Plan>, place: Place) {
    let plan = Arc::clone(plan);
    thread::spawn(move || {
        loop {
            match one_life(&plan, &place) {
                Ok(Ended::Rebooted) => {}
                Ok(_) => return,
                Err(error) => {
                    // The log is what the test prints when the node does not come up.
                    writeln!(io::stderr(), "{}: {error:#}", place.name()).ok();
                    return;
                }
            }
        }
    });
}

/// From power-on to the end, both reported.
fn one_life(plan: &Plan, place: &Place) -> Result<Ended> {
    let mut child = start(plan, place)?;
    let mut ready = String::new();
    BufReader::new(child.stdout.take().context("no stdout")?)
        .read_line(&mut ready)
        .context("the node says nothing")?;
    let pid = enter::only_child(child.id()).context("the node has ended at once")?;
    plug_in(place, pid)?;
    let report = Report::Booted {
        node: place.name().to_owned(),
        pid,
    };
    send(&mut io::stdout(), &report)?;
    drop(child.stdin.take());
    let how = how(child.wait().context("cannot wait for the node")?);
    let report = Report::Ended {
        node: place.name().to_owned(),
        how,
    };
    send(&mut io::stdout(), &report)?;
    Ok(how)
}

fn start(plan: &Plan, place: &Place) -> Result<Child> {
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(plan.folder().join(format!("{}.log", place.name())))
        .context("cannot open the log of a node")?;
    command::new("unshare")
        .args(["--mount", "--uts", "--net", "--pid", "--fork", "--kill-child"])
        .arg(plan.program())
        .args(["node", text(&plan.file())?, place.name()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .context("cannot start a node")
}

/// A new cable between the bridge and the node. The old one has gone with the node's last life.
fn plug_in(place: &Place, pid: u32) -> Result<()> {
    let (link, mac, pid) = (place.link(), place.mac(), pid.to_string());
    // The kernel takes links away some time after the namespace's last process; ours must be gone to be made again.
    command::run(delete(&link), std::time::Duration::from_secs(10), &[])?;
    command::ok(&[
        "ip", "link", "add", &link, "type", "veth", "peer", "name", "eth0", "address", &mac, "netns", &pid,
    ])?;
    command::ok(&["ip", "link", "set", &link, "master", "br0", "up"])?;
    Ok(())
}

fn delete(link: &str) -> std::process::Command {
    let mut command = command::new("ip");
    command.args(["link", "del", link]);
    command
}

/// `unshare` dies of the signal that its child has died of; `reboot(2)` in a PID namespace sends its init SIGHUP for a restart and SIGINT for
/// power off, says reboot(2). Only of SIGKILL `unshare` cannot die by its own means: it fails with 1, which our init never ends with
/// (see [`super::FAULT`]).
fn how(status: ExitStatus) -> Ended {
    match (status.signal(), status.code()) {
        (Some(1), _) => Ended::Rebooted,
        (Some(2), _) => Ended::PoweredOff,
        (Some(_), _) | (None, Some(1)) => Ended::Killed,
        (None, _) => Ended::Exited,
    }
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("the temporary folder is not UTF-8")
}
