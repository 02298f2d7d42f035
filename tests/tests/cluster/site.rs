//! The machines of a site in a lab, an upgrade host outside them, and what a test asks of both. Most sites have three machines.
//!
//! The platform of every machine is one script. A test can have it wait at a verb: the upgrade of the node then stands still in the
//! step that called it ([`Site::hold_at`]).

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
    releases::{Repository, TestModule, TestRelease},
    static_server::StaticServer,
    wait,
};
use kato_shared::durable;
use serde_json::Value;

/// A machine of a site: its name, its roles, and how many bytes may be written to its disk.
pub(crate) type Machine = (&'static str, &'static [&'static str], Option<u64>);

/// The machines of most sites; the first is Core.
const THREE: [Machine; 3] = [
    ("core", &["primary"], None),
    ("c1", &["controller"], None),
    ("w1", &["dea"], None),
];

/// Where operators call `kato`.
pub(crate) const KATO: &str = "/home/stackato/bin/kato";

/// The command under test, on Core.
pub(crate) const CLUSTER: [&str; 5] = [KATO, "node", "upgrade", "--cluster", "--skip-confirmation"];

/// How long a whole upgrade of three small nodes may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(150);

/// How long something that is under way may take to be seen.
const SOON: Duration = Duration::from_secs(60);

/// The platform of a machine: its units of work are a number in a file, and it waits where a test wants it to.
const PLATFORM: &str = r#"#!/bin/sh
set -eu
state=/var/platform
mkdir -p $state
touch "$state/at-$1"
while test -e "$state/hold-$1"; do sleep 0.05; done
rm -f "$state/at-$1"
case $1 in
    retire) touch $state/retired ;;
    rejoin) rm -f $state/retired ;;
    resident) echo "{\"count\": $(cat $state/units 2>/dev/null || echo 0), \"blockers\": []}" ;;
    capacity) cat $state/capacity ;;
    restart) ;;
    check | health) test ! -e $state/sick ;;
    module) touch $state/module ;;
    module-probe) test -e $state/module ;;
    module-undo) rm -f $state/module ;;
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
    machines: Vec<Machine>,
}

impl Site {
    /// Three machines at 1.0.0, with `releases` published beside it. Core reaches the others as a user who is not root.
    pub(crate) async fn at_one(releases: &[TestRelease]) -> Result<Self> {
        Self::of(&THREE, releases).await
    }

    /// [`Self::at_one`] with other machines.
    pub(crate) async fn of(machines: &[Machine], releases: &[TestRelease]) -> Result<Self> {
        let specs: Vec<NodeSpec> = machines
            .iter()
            .map(|(name, _, disk)| {
                let spec = NodeSpec::new(name);
                disk.map_or_else(|| spec.clone(), |bytes| spec.clone().disk_bytes(bytes))
            })
            .collect();
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
            machines: machines.to_vec(),
        };
        for (name, roles, _) in machines {
            site.install(name, roles)?;
        }
        site.host.reset();
        Ok(site)
    }

    fn install(&self, name: &str, roles: &[&str]) -> Result<()> {
        let node = self.node(name)?;
        node.put(
            "/etc/kato/kato.toml",
            self.settings(name, roles).as_bytes(),
            0o644,
        )?;
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

    fn settings(&self, name: &str, roles: &[&str]) -> String {
        let mut text = format!(
            "[node]\nid = \"{name}\"\nroles = {roles:?}\n[release]\nurl = \"{}\"\n[platform]\nreboot = {{ argv = [\"reboot\"] }}\n",
            self.host.url()
        );
        if roles.contains(&"dea") {
            text.extend(["retire", "rejoin", "resident", "restart"].map(verb));
        }
        text
    }

    fn inventory(&self) -> Result<String> {
        let mut text =
            "[cluster]\nname = \"lab\"\nlease = \"3s\"\n[ssh]\nuser = \"stackato\"\nconnect_timeout = \"2s\"\nkeep_alive = \"3s\"\n".to_owned();
        for (name, roles, _) in &self.machines {
            let address = self.node(name)?.address();
            write!(
                text,
                "[[node]]\nid = \"{name}\"\naddress = \"{address}\"\nroles = {roles:?}\n"
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

    /// The versions of all nodes, in the order of the inventory.
    pub(crate) fn versions(&self) -> Result<Vec<String>> {
        let version = |(name, ..): &Machine| {
            let status = self.status(name)?;
            Ok(status["version"].as_str().unwrap_or("none").to_owned())
        };
        self.machines.iter().map(version).collect()
    }

    /// How an upgrade must leave every node, whatever happened: in service by the platform's word and by its own, with no run at work,
    /// at one of `versions` (in the order of the inventory), and Core tells the same versions.
    pub(crate) fn ends_with(&self, versions: &[&str]) -> Result<()> {
        ensure!(
            self.versions()? == versions,
            "{:?} are not {versions:?}",
            self.versions()?
        );
        for (name, ..) in &self.machines {
            let status = self.status(name)?;
            ensure!(status["state"] != "running", "{name} is at work: {status}");
            ensure!(
                status["out_of_service"] == false,
                "{name} was left retired: {status}"
            );
            ensure!(
                !self.node(name)?.exists("/var/platform/retired")?,
                "{name} was left retired"
            );
        }
        self.told(&[KATO, "status", "--json"], versions)
    }

    /// [`Self::ends_with`] where Core's key is in the agent at `socket` alone.
    pub(crate) fn ends_behind_an_agent(&self, socket: &str, versions: &[&str]) -> Result<()> {
        ensure!(
            self.versions()? == versions,
            "{:?} are not {versions:?}",
            self.versions()?
        );
        let agent = format!("SSH_AUTH_SOCK={socket}");
        self.told(&["env", &agent, KATO, "status", "--json"], versions)
    }

    /// That Core, asked by `words`, tells `versions`.
    fn told(&self, words: &[&str], versions: &[&str]) -> Result<()> {
        let told = self.node("core")?.ok(words)?;
        let told: Value = serde_json::from_str(&told)?;
        for ((name, ..), version) in self.machines.iter().zip(versions) {
            let nodes = told["nodes"].as_array().context("no nodes")?;
            let node = nodes
                .iter()
                .find(|node| node["id"] == *name)
                .context("not told")?;
            ensure!(
                node["status"]["version"] == *version,
                "{name} by Core's word: {node}"
            );
        }
        Ok(())
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

    /// Has the upgrade of `node` stand still when it comes to `verb` of its platform, until [`Self::release`].
    pub(crate) fn hold_at(&self, node: &str, verb: &str) -> Result<()> {
        let node = self.node(node)?;
        node.ok(&["mkdir", "-p", "/var/platform"])?;
        node.ok(&["rm", "-f", &format!("/var/platform/at-{verb}")])?;
        node.ok(&["touch", &format!("/var/platform/hold-{verb}")])?;
        Ok(())
    }

    /// Waits until `node` stands still at `verb`.
    pub(crate) fn wait_at(&self, node: &str, verb: &str) -> Result<()> {
        let there = format!("/var/platform/at-{verb}");
        wait::until(&format!("{node} at `{verb}`"), SOON, || {
            self.node(node).ok()?.exists(&there).ok()?.then_some(())
        })
        .with_context(|| format!("{node}: {:?}", self.status(node)))
    }

    /// Lets it go on.
    pub(crate) fn release(&self, node: &str, verb: &str) -> Result<()> {
        let node = self.node(node)?;
        node.ok(&["rm", "-f", &format!("/var/platform/hold-{verb}")])?;
        Ok(())
    }

    /// Adds `text` to a file of `node`.
    pub(crate) fn append(&self, node: &str, path: &str, text: &str) -> Result<()> {
        let node = self.node(node)?;
        let mut content = node.read(path)?;
        content.extend_from_slice(text.as_bytes());
        node.put(path, &content, 0o644)
    }

    /// Has `node` say how much work it has and could take.
    pub(crate) fn has_capacity(&self, node: &str, used: u64, free: u64) -> Result<()> {
        let said = format!("{{\"used\": {used}, \"free\": {free}}}\n");
        self.node(node)?
            .put("/var/platform/capacity", said.as_bytes(), 0o644)
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

/// The line of `[platform]` by which the script is asked for `name`.
pub(crate) fn verb(name: &str) -> String {
    format!("{name} = {{ argv = [\"/etc/kato/platform.sh\", \"{name}\"] }}\n")
}

/// A module for `roles` whose installation is the verb `module` of the platform, and a check of the release that is its verb `check`.
pub(crate) fn with_gates(mut release: TestRelease, roles: &[&str]) -> TestRelease {
    let call = |verb: &str| format!("[\"/etc/kato/platform.sh\", \"{verb}\"]");
    let install = format!(
        "policy = \"exec\"\ncmd = {}\nprobe = {}\nundo = {}",
        call("module"),
        call("module-probe"),
        call("module-undo")
    );
    release
        .modules
        .push(TestModule::new("gate", &install, &[]).for_roles(roles));
    release.head = "restart = \"services\"\n".into();
    release.tail = format!(
        "[[check]]\nid = \"command\"\nargv = {}\ndeadline = \"0s\"\n",
        call("check")
    );
    release
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
