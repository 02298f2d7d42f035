//! Keys and names: every node accepts the lab's key, holds it too (so each can be the Core node), and knows the others' host keys.

use std::{fmt::Write, fs, path::PathBuf};

use anyhow::{Context, Result};
use kato_shared::durable;

use super::{HOST, plan::Plan};
use crate::command;

/// Makes one key pair for the lab, one host key for each node, and the `known_hosts` and `hosts` that every node gets.
pub(crate) fn make(plan: &Plan) -> Result<()> {
    generate(key(plan), "lab")?;
    let mut known = String::new();
    let mut hosts = format!("127.0.0.1 localhost\n{HOST} lab-host\n");
    for place in plan.nodes() {
        let folder = plan.node_folder(place);
        durable::create_folder(&folder).context("cannot make the folder of a node")?;
        let host_key = folder.join("host_key");
        generate(host_key.clone(), place.name())?;
        let public = fs::read_to_string(host_key.with_extension("pub")).context("cannot read a host key")?;
        let (name, address) = (place.name(), place.address());
        write!(known, "{name},{address} {public}")?;
        writeln!(hosts, "{address} {name}")?;
    }
    durable::write(&known_hosts(plan), known.as_bytes(), 0o644)?;
    durable::write(&plan.folder().join("hosts"), hosts.as_bytes(), 0o644)?;
    Ok(())
}

/// The private key of the lab.
pub(crate) fn key(plan: &Plan) -> PathBuf {
    plan.folder().join("key")
}

/// All nodes' host keys, by name and by address.
pub(crate) fn known_hosts(plan: &Plan) -> PathBuf {
    plan.folder().join("known_hosts")
}

fn generate(file: PathBuf, comment: &str) -> Result<()> {
    let file = file
        .into_os_string()
        .into_string()
        .ok()
        .context("the temporary folder is not UTF-8")?;
    command::ok(&[
        "ssh-keygen",
        "-q",
        "-t",
        "ed25519",
        "-N",
        "",
        "-C",
        comment,
        "-f",
        &file,
    ])?;
    Ok(())
}
