//! PID 1 of a node: starts sshd and the boot scripts, then reaps orphans until the node ends.
//!
//! Work that is detached from its ssh session becomes our child: see [`super::reap`].

use std::{
    fs,
    io::{self, Write},
    os::fd::AsFd,
    os::unix::fs::PermissionsExt,
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, bail};

use super::reap;
use crate::{command, lab::BOOT_FOLDER};

/// Where a node's host key stands.
pub(crate) const SSH_HOST_KEY: &str = "/etc/lab/host_key";

/// Ends only when sshd does.
pub(crate) fn run() -> Result<()> {
    let sshd = start(command::new("/usr/sbin/sshd").args([
        "-D",
        "-e",
        "-f",
        "/dev/null",
        "-h",
        SSH_HOST_KEY,
        "-o",
        "PidFile=/run/sshd.pid",
        "-o",
        "UsePAM=no",
        "-o",
        "PermitRootLogin=yes",
        "-o",
        "StrictModes=no",
        "-o",
        "Subsystem=sftp internal-sftp",
    ]))?;
    boot_scripts()?;
    reap::until_end_of(&sshd)?;
    bail!("sshd has ended")
}

fn boot_scripts() -> Result<()> {
    let entries = fs::read_dir(BOOT_FOLDER).with_context(|| format!("cannot read `{BOOT_FOLDER}`"))?;
    let mut scripts: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    scripts.sort();
    for script in scripts {
        let executable = fs::metadata(&script).is_ok_and(|facts| facts.permissions().mode() & 0o111 != 0);
        if !executable {
            continue;
        }
        // One broken unit does not keep a machine from booting.
        if let Err(error) = start(&mut command::new(&script)) {
            writeln!(io::stderr(), "{error:#}").ok();
        }
    }
    Ok(())
}

/// Starts a child whose output goes to the node's log.
fn start(child: &mut Command) -> Result<Child> {
    let log = io::stderr().as_fd().try_clone_to_owned().context("no log")?;
    let line = command::line(child);
    child
        .stdout(Stdio::from(log))
        .spawn()
        .with_context(|| format!("cannot start `{line}`"))
}
