//! A node below a folder: its own root, its settings, a platform made of small files, and the built `kato` run on it.
//!
//! The platform counts what it is asked in `platform/calls`, keeps its units of work in `platform/units`, and is out of
//! out of service while `platform/retired` exists. A test changes these files to have it lie, and makes `platform/hang-<verb>`
//! or `platform/fail-<verb>` to have it hang (with a child, `platform/sleeper`) or fail. In `platform/words`, where a test has made it, is
//! what each verb was told as the version.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use kato_shared::durable;
use kato_upgrader::module::tree::{self, Entry, Kind};
use serde_json::Value;
use url::Url;

use crate::{binaries, command};

/// How long one run may take on a busy machine.
const DEADLINE: Duration = Duration::from_secs(120);

/// The state folder below the root.
pub const STATE: &str = "var/stackato/upgrade";

/// A node.
#[derive(Debug, Clone)]
pub struct TestNode {
    folder: PathBuf,
    /// The repository that it upgrades from.
    url: Url,
    trusted_root: PathBuf,
    roles: Vec<String>,
    /// The lines of `[platform]`; the platform of small files when `None`.
    platform: Option<String>,
    /// More lines of its settings file.
    more: String,
}

impl TestNode {
    /// A node in `folder` with `roles`, which trusts `trusted_root` and takes releases from `url`.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn new(folder: &Path, roles: &[&str], url: &Url, trusted_root: &Path) -> Result<Self> {
        let node = Self {
            folder: folder.to_owned(),
            url: url.clone(),
            trusted_root: trusted_root.to_owned(),
            roles: roles.iter().map(ToString::to_string).collect(),
            platform: None,
            more: String::new(),
        };
        durable::create_folder(&node.root())?;
        node.platform()?;
        node.write_settings()?;
        Ok(node)
    }

    /// The node's root.
    pub fn root(&self) -> PathBuf {
        self.folder.join("root")
    }

    /// A path below the node's root.
    pub fn path(&self, below: &str) -> PathBuf {
        self.root().join(below)
    }

    /// A path below the node's state folder.
    pub fn state(&self, below: &str) -> PathBuf {
        self.path(STATE).join(below)
    }

    /// The settings file.
    pub fn config(&self) -> PathBuf {
        self.folder.join("kato.toml")
    }

    /// Takes releases from `url` from now on.
    ///
    /// # Errors
    /// When the settings cannot be written.
    pub fn take_from(&mut self, url: &Url) -> Result<()> {
        self.url = url.clone();
        self.write_settings()
    }

    /// Adds lines to the settings file.
    ///
    /// # Errors
    /// When the settings cannot be written.
    pub fn add_settings(&mut self, lines: &str) -> Result<()> {
        self.more.push_str(lines);
        self.write_settings()
    }

    /// Has another platform from now on: `lines` are those of `[platform]`.
    ///
    /// # Errors
    /// When the settings cannot be written.
    pub fn platform_is(&mut self, lines: &str) -> Result<()> {
        self.platform = Some(lines.to_owned());
        self.write_settings()
    }

    /// Puts the script `text` where `kato` finds it before a program of the machine that is called `name`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn add_program(&self, name: &str, text: &str) -> Result<()> {
        durable::create_folder(&self.programs())?;
        Ok(durable::write(
            &self.programs().join(name),
            text.as_bytes(),
            0o755,
        )?)
    }

    /// A copy of the whole node in another folder.
    ///
    /// # Errors
    /// When it cannot be copied.
    pub fn copy_to(&self, folder: &Path) -> Result<Self> {
        command::ok(&["cp", "-a", "--", &text(&self.folder), &text(folder)])?;
        let copy = Self {
            folder: folder.to_owned(),
            ..self.clone()
        };
        copy.platform()?;
        copy.write_settings()?;
        Ok(copy)
    }

    fn write_settings(&self) -> Result<()> {
        let mut toml = format!(
            "[node]\nid = \"n1\"\nroles = {:?}\nroot = {:?}\n[release]\nurl = \"{}\"\ntrusted_root = {:?}\n",
            self.roles,
            text(&self.root()),
            self.url,
            text(&self.trusted_root),
        );
        toml.push_str("[platform]\n");
        if let Some(lines) = &self.platform {
            toml.push_str(lines);
        } else {
            self.write_commands(&mut toml)?;
        }
        toml.push_str(&self.more);
        Ok(durable::write(&self.config(), toml.as_bytes(), 0o644)?)
    }

    /// The platform of small files, as commands of `[platform]`.
    fn write_commands(&self, toml: &mut String) -> Result<()> {
        for verb in [
            "retire", "resident", "force", "rejoin", "restart", "reboot", "health", "version", "backup",
            "restore",
        ] {
            let program = text(&self.folder.join("platform.sh"));
            writeln!(
                toml,
                "{verb} = {{ argv = [{program:?}, \"{verb}\", \"{{root}}\", \"{{version}}\", \"{{dir}}\"] }}"
            )?;
        }
        Ok(())
    }

    /// The platform's program. Its answers are files below `platform/` that a test may change.
    fn platform(&self) -> Result<()> {
        const PROGRAM: &str = r#"#!/bin/sh
set -eu
verb=$1 state=$2/platform version=$3 dir=$4
mkdir -p "$state"
echo "$verb" >> "$state/calls"
if [ -e "$state/words" ]; then echo "$verb $version" >> "$state/words"; fi
if [ -e "$state/hang-$verb" ]; then
    sleep 600 &
    echo $! > "$state/sleeper.new"; mv "$state/sleeper.new" "$state/sleeper"; wait
fi
if [ -e "$state/fail-$verb" ]; then echo "$verb does not work today" >&2; exit 1; fi
case $verb in
    retire) touch "$state/retired" ;;
    rejoin) rm -f "$state/retired" ;;
    force) rm -f "$state/units" ;;
    resident)
        count=0; if [ -e "$state/units" ]; then count=$(cat "$state/units"); fi
        retired=false; if [ -e "$state/retired" ]; then retired=true; fi
        echo "{\"count\": $count, \"blockers\": [], \"retired\": $retired}" ;;
    restart) echo "$version" > "$state/running" ;;
    reboot) mkdir -p "$2/proc/sys/kernel/random"
        echo "$version" > "$state/running"
        if [ ! -e "$state/reboot-fails" ]; then echo "boot after $version" > "$2/proc/sys/kernel/random/boot_id"; fi ;;
    version) echo "{\"version\": \"$(cat "$state/version-is" 2>/dev/null || cat "$state/running" 2>/dev/null || echo "$version")\"}" ;;
    backup) echo saved > "$dir/platform-state"; cp "$state/database" "$dir/" 2>/dev/null || true ;;
    restore) test -e "$dir/platform-state"; cp "$dir/database" "$state/" 2>/dev/null || true ;;
esac
"#;
        let program = self.folder.join("platform.sh");
        durable::write(&program, PROGRAM.as_bytes(), 0o755)?;
        Ok(durable::create_folder(&self.path("platform"))?)
    }

    /// A folder of programs that `kato` finds before those of the machine.
    fn programs(&self) -> PathBuf {
        self.folder.join("bin")
    }

    /// Makes the node one where systemd is the first process. What `systemctl` is asked is in `platform/systemctl`.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn with_systemd(&self) -> Result<()> {
        const SYSTEMCTL: &str = r#"#!/bin/sh
set -eu
root=${1#--root=} verb=$2 unit=$3
echo "$verb $unit" >> "$root/platform/systemctl"
wants=$root/etc/systemd/system/multi-user.target.wants
case $verb in
    enable) test -e "$root/etc/systemd/system/$unit"; mkdir -p "$wants"; ln -sf "../$unit" "$wants/$unit" ;;
    disable) rm -f "$wants/$unit" ;;
esac
"#;
        durable::create_folder(&self.programs())?;
        durable::write(&self.programs().join("systemctl"), SYSTEMCTL.as_bytes(), 0o755)?;
        Ok(durable::create_folder(&self.path("run/systemd/system"))?)
    }

    /// Puts a program where `kato` finds it before those of the machine.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn program(&self, name: &str, script: &str) -> Result<()> {
        durable::create_folder(&self.programs())?;
        Ok(durable::write(
            &self.programs().join(name),
            script.as_bytes(),
            0o755,
        )?)
    }

    /// `kato --config … <arguments>` with a clean environment.
    ///
    /// # Errors
    /// When `kato` has not been built.
    pub fn kato(&self, arguments: &[&str]) -> Result<Command> {
        let mut kato = command::new(binaries::built("kato")?);
        kato.env("PATH", format!("{}:{}", text(&self.programs()), command::PATH));
        kato.arg("--config").arg(self.config()).args(arguments);
        Ok(kato)
    }

    /// Runs `kato node upgrade --skip-confirmation <arguments>`.
    ///
    /// # Errors
    /// When it cannot be started or does not end.
    pub fn upgrade(&self, arguments: &[&str]) -> Result<Output> {
        let mut kato = self.kato(&["node", "upgrade", "--skip-confirmation"])?;
        kato.args(arguments);
        command::run(kato, DEADLINE, &[])
    }

    /// [`TestNode::upgrade`] that must end with `code`; gives what it wrote to stderr.
    ///
    /// # Errors
    /// When it ends otherwise; its output is in the message.
    pub fn upgrade_ends(&self, code: i32, arguments: &[&str]) -> Result<String> {
        let output = self.upgrade(arguments)?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(
            output.status.code() == Some(code),
            "kato node upgrade {arguments:?} ended with {}, expected {code}; it wrote:\n{said}",
            output.status
        );
        Ok(said)
    }

    /// Writes a file below the root.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn put(&self, below: &str, content: &str) -> Result<()> {
        let path = self.path(below);
        durable::create_folder(path.parent().context("a path below the root has a folder")?)?;
        Ok(durable::write(&path, content.as_bytes(), 0o644)?)
    }

    /// The content of a file below the root; `None` when it is not there.
    pub fn text(&self, below: &str) -> Option<String> {
        fs::read_to_string(self.path(below)).ok()
    }

    /// How often the platform was asked for `verb`.
    pub fn calls(&self, verb: &str) -> usize {
        self.text("platform/calls")
            .unwrap_or_default()
            .lines()
            .filter(|line| *line == verb)
            .count()
    }

    /// The version of the record of the installed release.
    pub fn installed(&self) -> Option<String> {
        let record = fs::read(self.state("state/installed.json")).ok()?;
        let record: Value = serde_json::from_slice(&record).ok()?;
        record["version"].as_str().map(ToOwned::to_owned)
    }

    /// The names of the latches.
    pub fn latches(&self) -> Vec<String> {
        names(&self.state("tmp/module-latches"))
    }

    /// Everything of the product on the node: all of the root except the upgrade's own state and the platform's files.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn product(&self) -> Result<Vec<Entry>> {
        let mut entries = tree::scan(&self.root())?;
        entries.retain(|entry| !entry.path.starts_with("var") && !entry.path.starts_with("platform"));
        Ok(entries)
    }

    /// What an upgrade must not leave behind, anywhere below the root.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn leftovers(&self) -> Result<Vec<PathBuf>> {
        let mut left = Vec::new();
        for entry in tree::scan(&self.root())? {
            let name = entry.path.file_name().unwrap_or_default();
            let text = name.to_string_lossy();
            let is_partial = text.contains(".new-") || text.contains(".old-") || text.ends_with(".part");
            if is_partial || durable::is_temporary(name) {
                left.push(entry.path);
            }
        }
        for state in [
            "state/upgrade.json",
            "state/out-of-service.json",
            "state/work",
            "state/undo",
            "tmp/upgrade-failed",
            "fix-kato.sh",
        ] {
            if self.state(state).exists() {
                left.push(self.state(state));
            }
        }
        for folder in ["tmp/module-latches", "staging", "state/commands"] {
            left.extend(
                names(&self.state(folder))
                    .into_iter()
                    .map(|name| self.state(folder).join(name)),
            );
        }
        let kept = self.kept()?;
        left.retain(|path| !kept.contains(path));
        Ok(left)
    }

    /// What stays of the downloads for the release that was rolled back last, so that it can be tried again without the network.
    ///
    /// # Errors
    /// When a document of it cannot be read.
    pub fn kept(&self) -> Result<BTreeSet<PathBuf>> {
        let mut kept = BTreeSet::new();
        let Ok(quarantine) = fs::read(self.state("state/quarantine.json")) else {
            return Ok(kept);
        };
        let quarantine: Value = serde_json::from_slice(&quarantine)?;
        let last = quarantine["releases"].as_array().and_then(|all| all.last());
        let then = last
            .and_then(|last| last["then"].as_array())
            .into_iter()
            .flatten();
        let documents = last.map(|last| &last["release_digest"]).into_iter().chain(then);
        for digest in documents {
            let staged = |digest: &Value| {
                let name = digest.as_str().unwrap_or_default();
                self.state("staging")
                    .join(name.strip_prefix("sha256:").unwrap_or(name))
            };
            let document = staged(digest);
            let Ok(bytes) = fs::read(&document) else { break };
            let release: Value = serde_json::from_slice(&bytes)?;
            let files = ["artifacts", "upgrader"].map(|key| release[key].as_object().into_iter().flatten());
            let files = files.into_iter().flatten();
            kept.extend(files.map(|(_, file)| staged(&file["sha256"])));
            kept.insert(document);
        }
        Ok(kept)
    }

    /// The files that were saved by the backups, as `<backup>/saved/…` paths below the backup folder.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn saved(&self) -> Result<Vec<PathBuf>> {
        let entries = tree::scan(&self.state("backup"))?;
        let is_saved_file = |entry: &Entry| {
            matches!(entry.kind, Kind::File { .. })
                && entry.path.components().any(|part| part.as_os_str() == "saved")
        };
        Ok(entries
            .into_iter()
            .filter(is_saved_file)
            .map(|entry| entry.path)
            .collect())
    }
}

/// The sorted names in a folder; none when it is not there.
pub fn names(folder: &Path) -> Vec<String> {
    let Ok(listing) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut names: Vec<_> = listing
        .flatten()
        .map(|item| item.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Whether a program is there and may be run.
pub fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
