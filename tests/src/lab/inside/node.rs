//! One node before its init runs: root, name, network, keys. Runs in the node's new namespaces and becomes its PID 1.

use std::{
    fs,
    io::{self, Read},
    os::unix::process::CommandExt,
    path::Path,
};

use anyhow::{Context, Result};
use kato_shared::durable;

use super::init::SSH_HOST_KEY;
use crate::{
    command,
    lab::{
        BOOT_FOLDER, keys,
        plan::{Place, Plan},
    },
};

/// Says that it exists, waits for its network cable, and becomes `lab init` in its own root.
pub(crate) fn run(plan: &Plan, name: &str) -> Result<()> {
    let place = plan
        .node(name)
        .with_context(|| format!("the lab has no node `{name}`"))?;
    let root = plan.node_folder(place).join("root");
    super::send(&mut io::stdout(), &"here")?;
    // Closed when the link is there.
    io::stdin()
        .read_to_end(&mut Vec::new())
        .context("cannot wait for the link")?;
    mount_root(plan, place, &root)?;
    command::ok(&["hostname", name])?;
    command::ok(&["ip", "link", "set", "lo", "up"])?;
    command::ok(&[
        "ip",
        "addr",
        "add",
        &format!("{}/24", place.address()),
        "dev",
        "eth0",
    ])?;
    command::ok(&["ip", "link", "set", "eth0", "up"])?;
    if !root.join(BOOT_FOLDER.trim_start_matches('/')).exists() {
        first_boot(plan, place, &root)?;
    }
    let mut init = command::new("chroot");
    init.arg(&root).arg(plan.program()).arg("init");
    Err(init.exec()).context("cannot start the node's init")
}

fn mount_root(plan: &Plan, place: &Place, root: &Path) -> Result<()> {
    let layer = plan.node_folder(place).join("layer");
    let options = format!("lowerdir=/,upperdir={0}/upper,workdir={0}/work", layer.display());
    let at = |folder: &str| format!("{}/{folder}", root.display());
    command::ok(&["mount", "-t", "overlay", "overlay", "-o", &options, &at("")])?;
    command::ok(&["mount", "-t", "proc", "proc", &at("proc")])?;
    command::ok(&["mount", "-t", "sysfs", "sysfs", &at("sys")])?;
    command::ok(&["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", &at("run")])?;
    command::ok(&["mount", "--rbind", "/dev", &at("dev")])?;
    let binaries = plan
        .binaries()
        .to_str()
        .context("the target folder is not UTF-8")?;
    let inside = at(binaries.trim_start_matches('/'));
    command::ok(&["mkdir", "-p", &inside, &at("run/sshd")])?;
    command::ok(&["mount", "--bind", "-o", "ro", binaries, &inside])?;
    Ok(())
}

/// What tests may change afterwards, so it is written once in a node's life and not at each boot.
fn first_boot(plan: &Plan, place: &Place, root: &Path) -> Result<()> {
    let name = place.name();
    let from = |path: &Path| fs::read(path).with_context(|| format!("cannot read `{}`", path.display()));
    let key = from(&keys::key(plan))?;
    let public = from(&keys::key(plan).with_extension("pub"))?;
    let known = from(&keys::known_hosts(plan))?;
    let hosts = from(&plan.folder().join("hosts"))?;
    let host_key = from(&plan.node_folder(place).join("host_key"))?;
    // The machine's own keys and ssh settings must not help or hinder a node.
    // Nor must the notes of its container tools, which may be half written while they show through.
    for own in ["root/.ssh", "var/lib/containers/cache"] {
        let folder = root.join(own);
        let folder = folder.to_str().context("the temporary folder is not UTF-8")?;
        command::ok(&["rm", "-rf", folder])?;
    }
    let program = plan.program().display();
    let script = |verb: &str| format!("#!/bin/sh\nexec {program} {verb}\n").into_bytes();
    let files: [(&str, Vec<u8>, u32); 8] = [
        ("root/.ssh/authorized_keys", public, 0o600),
        ("root/.ssh/id_ed25519", key, 0o600),
        (SSH_HOST_KEY.trim_start_matches('/'), host_key, 0o600),
        ("etc/ssh/ssh_known_hosts", known, 0o644),
        ("etc/hosts", hosts, 0o644),
        ("etc/hostname", format!("{name}\n").into_bytes(), 0o644),
        ("usr/local/bin/reboot", script("reboot"), 0o755),
        ("usr/local/bin/poweroff", script("poweroff"), 0o755),
    ];
    for (path, bytes, mode) in files {
        let path = root.join(path);
        durable::create_folder(path.parent().context("a file has a folder")?)?;
        durable::write(&path, &bytes, mode)?;
    }
    durable::create_folder(&root.join(BOOT_FOLDER.trim_start_matches('/')))?;
    Ok(())
}
