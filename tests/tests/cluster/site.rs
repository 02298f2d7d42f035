//! Three machines in a lab, an upgrade host outside them, and what a test asks of both.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::{Path, PathBuf},
    process::Output,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use integration_tests::{
    binaries,
    lab::{Background, Lab, Node, NodeSpec},
    releases::{Repository, TestRelease},
    static_server::StaticServer,
    wait,
};
use kato_shared::durable;
use serde_json::Value;

/// The nodes with their roles; the first is Core.
const NODES: [(&str, &str); 3] = [("core", "primary"), ("c1", "controller"), ("w1", "dea")];

/// Where operators call `kato`.
pub(crate) const KATO: &str = "/home/stackato/bin/kato";

/// The command under test, on Core.
pub(crate) const CLUSTER: [&str; 5] = [KATO, "node", "upgrade", "--cluster", "--skip-confirmation"];

/// How long a whole upgrade of three small nodes may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(150);

/// How long something that is under way may take to be seen.
const SOON: Duration = Duration::from_secs(60);

/// The platform of the worker: its units of work are a number in a file.
const PLATFORM: &str = r#"#!/bin/sh
set -eu
mkdir -p /var/platform
case $1 in
    retire) touch /var/platform/retired ;;
    rejoin) rm -f /var/platform/retired ;;
    resident) echo "{\"count\": $(cat /var/platform/units 2>/dev/null || echo 0), \"blockers\": []}" ;;
esac
"#;

/// All machines of a lab have one kernel and so one boot id; this gives each boot its own.
const BOOT_SCRIPT: (&str, &str) = (
    "/etc/lab/boot.d/10-boot-id",
    "#!/bin/sh\nset -eu\ncat /proc/sys/kernel/random/uuid >/run/boot_id\nmount --bind /run/boot_id /proc/sys/kernel/random/boot_id\n",
);

pub(crate) struct Site {
    pub(crate) host: StaticServer,
    pub(crate) repository: Repository,
    pub(crate) lab: Lab,
}

impl Site {
    /// The three nodes at 1.0.0, with `releases` published beside it. Core reaches the others as a user who is not root.
    pub(crate) async fn at_one(releases: &[TestRelease]) -> Result<Self> {
        let specs = NODES.map(|(name, _)| NodeSpec::new(name));
        let lab = Lab::start(&specs)?;
        let repository = Repository::empty(&lab.folder().join("upgrade-host")).await?;
        repository.publish(&TestRelease::standard("1.0.0")).await?;
        for release in releases {
            repository.publish(release).await?;
        }
        let host = StaticServer::start_with(&repository.dir(), lab.listen(0)?)?;
        let site = Self {
            host,
            repository,
            lab,
        };
        for (name, role) in NODES {
            site.install(name, role)?;
        }
        site.host.reset();
        Ok(site)
    }

    fn install(&self, name: &str, role: &str) -> Result<()> {
        let node = self.node(name)?;
        node.put("/etc/kato/kato.toml", self.settings(name, role).as_bytes(), 0o644)?;
        node.put(
            "/etc/kato/root.json",
            &std::fs::read(self.repository.root())?,
            0o644,
        )?;
        node.put("/etc/kato/cluster.toml", self.inventory()?.as_bytes(), 0o644)?;
        node.put("/etc/kato/platform.sh", PLATFORM.as_bytes(), 0o755)?;
        node.put(BOOT_SCRIPT.0, BOOT_SCRIPT.1.as_bytes(), 0o755)?;
        node.ok(&[BOOT_SCRIPT.0])?;
        node.ok(&["useradd", "--create-home", "--password", "*", "stackato"])?;
        let program = binaries::built("kato")?.display().to_string();
        node.ok(&["mkdir", "-p", "/home/stackato/bin", "/home/stackato/.ssh"])?;
        node.ok(&["ln", "-s", &program, KATO])?;
        node.ok(&[
            "cp",
            "/root/.ssh/authorized_keys",
            "/home/stackato/.ssh/authorized_keys",
        ])?;
        node.ok(&["chown", "-R", "stackato:", "/home/stackato"])?;
        let sudoers = node.ok(&[KATO, "print-sudoers"])?;
        node.put("/etc/sudoers.d/kato", sudoers.as_bytes(), 0o440)?;
        let installed = node.exec_within(
            PATIENCE,
            &[
                KATO,
                "node",
                "upgrade",
                "--skip-confirmation",
                "--version",
                "1.0.0",
            ],
            &[],
        )?;
        ensure!(installed.status.success(), "{name}: {}", text(&installed));
        Ok(())
    }

    fn settings(&self, name: &str, role: &str) -> String {
        let service = if role == "dea" {
            "retire = { argv = [\"/etc/kato/platform.sh\", \"retire\"] }\nrejoin = { argv = [\"/etc/kato/platform.sh\", \
             \"rejoin\"] }\nresident = { argv = [\"/etc/kato/platform.sh\", \"resident\"] }\n"
        } else {
            ""
        };
        format!(
            "[node]\nid = \"{name}\"\nroles = [\"{role}\"]\n[release]\nurl = \"{}\"\n[platform]\nreboot = {{ argv = \
             [\"reboot\"] }}\n{service}",
            self.host.url()
        )
    }

    fn inventory(&self) -> Result<String> {
        let mut text =
            "[cluster]\nname = \"lab\"\nlease = \"3s\"\n[ssh]\nuser = \"stackato\"\nconnect_timeout = \"2s\"\nkeep_alive = \"3s\"\n".to_owned();
        for (name, role) in NODES {
            let address = self.node(name)?.address();
            write!(
                text,
                "[[node]]\nid = \"{name}\"\naddress = \"{address}\"\nroles = [\"{role}\"]\n"
            )?;
        }
        Ok(text)
    }

    pub(crate) fn node(&self, name: &str) -> Result<Node<'_>> {
        self.lab.node(name)
    }

    /// Runs `kato node upgrade --cluster` with `more` on Core to its end.
    pub(crate) fn upgrade(&self, more: &[&str]) -> Result<Output> {
        let argv: Vec<&str> = CLUSTER.iter().chain(more).copied().collect();
        self.node("core")?.exec_within(PATIENCE, &argv, &[])
    }

    /// Starts it with `--json`; it ends with the answer.
    pub(crate) fn begin(&self) -> Result<Background> {
        let argv: Vec<&str> = CLUSTER.iter().chain(&["--json"]).copied().collect();
        self.node("core")?.spawn(&argv)
    }

    /// What the node says about itself.
    pub(crate) fn status(&self, name: &str) -> Result<Value> {
        let said = self
            .node(name)?
            .ok(&[KATO, "node", "upgrade", "--status", "--json"])?;
        serde_json::from_str(&said).with_context(|| format!("{name} said: {said}"))
    }

    /// The versions of all nodes.
    pub(crate) fn versions(&self) -> Result<[String; 3]> {
        let mut versions = [const { String::new() }; 3];
        for (version, (name, _)) in versions.iter_mut().zip(NODES) {
            self.status(name)?["version"]
                .as_str()
                .unwrap_or("none")
                .clone_into(version);
        }
        Ok(versions)
    }

    /// The runs that changed a node, as its own events tell, in their order; runs that only fetched are not among them.
    pub(crate) fn upgrades_of(&self, name: &str) -> Result<Vec<String>> {
        let events = self.node(name)?.ok(&[KATO, "node", "events", "--after", "0"])?;
        let mut runs = Vec::new();
        for line in events.lines() {
            let event: Value = serde_json::from_str(line)?;
            let begins = event["event"] == "step_started" && event["step"] == "backup";
            if begins {
                runs.push(event["run"].as_str().unwrap_or_default().to_owned());
            }
        }
        Ok(runs)
    }

    /// Work that keeps the worker from being empty: its upgrade waits at `retire` until [`Self::release_worker`].
    pub(crate) fn hold_worker(&self) -> Result<()> {
        self.node("w1")?.put("/var/platform/units", b"1\n", 0o644)
    }

    pub(crate) fn release_worker(&self) -> Result<()> {
        self.node("w1")?.put("/var/platform/units", b"0\n", 0o644)
    }

    /// Waits until the worker's upgrade waits at `retire`.
    pub(crate) fn wait_held(&self) -> Result<()> {
        wait::until("w1 waiting at `retire`", SOON, || {
            let status = self.status("w1").ok()?;
            (status["state"] == "running" && status["step"] == "retire").then_some(())
        })
    }

    /// Waits until the worker's run is over.
    pub(crate) fn wait_idle(&self) -> Result<()> {
        wait::until("w1 at rest", SOON, || {
            (self.status("w1").ok()?["state"] == "idle").then_some(())
        })
    }

    /// A `kato` that differs from the built one in its digest alone.
    pub(crate) fn other_kato(folder: &Path) -> Result<PathBuf> {
        let mut program = std::fs::read(binaries::built("kato")?)?;
        // A loader reads an ELF file by its headers; what follows the last section is nobody's.
        program.extend_from_slice(b"another build");
        let file = folder.join("kato-next");
        durable::write(&file, &program, 0o755)?;
        Ok(file)
    }

    /// How often each module's archive was asked for.
    pub(crate) fn artifact_requests(&self) -> BTreeMap<String, u64> {
        let requests = self.host.requests();
        requests
            .into_iter()
            .filter(|(path, _)| path.contains("artifacts"))
            .collect()
    }
}

/// Reads lines of `--json` until one says `event`.
pub(crate) fn wait_event(run: &Background, event: &str) -> Result<Value> {
    loop {
        let line = run.line(SOON)?;
        let said: Value = serde_json::from_str(&line).with_context(|| format!("not JSON: {line}"))?;
        if said["event"] == event {
            return Ok(said);
        }
    }
}

/// Both streams of a command, for the message of a failure.
pub(crate) fn text(output: &Output) -> String {
    format!(
        "{}\n--- stdout\n{}\n--- stderr\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}
