//! Programs of platforms that are not on this machine: scripts with the same arguments and the same JSON, which keep their state
//! in files. A test puts files there to have them lie, flap, hang or talk nonsense.

use std::{fs, path::PathBuf};

use anyhow::Result;
use kato_shared::durable;
use kato_upgrader::{
    paths::NodePaths,
    platform::{self, Children, Platform},
    settings::Settings,
};

/// A fake program and its state.
pub(crate) struct Fake {
    folder: tempfile::TempDir,
    name: &'static str,
}

/// What every fake does first: it notes the call, and hangs, or finds nobody there, when it was told to.
const HEAD: &str = r#"#!/bin/sh
set -eu
state=@STATE@
echo "$*" >> "$state/calls"
if [ -e "$state/hang" ]; then exec sleep 600; fi
if [ -e "$state/away" ]; then echo "dial tcp 127.0.0.1: connection refused" >&2; exit 1; fi
if [ -e "$state/garbage" ]; then printf '{"items": [\377\n'; exit 0; fi
"#;

const KUBECTL: &str = r#"
case "$1" in --kubeconfig=*) shift ;; esac
case "$1 $2" in
    "cordon "*) touch "$state/cordoned" ;;
    "uncordon "*) rm -f "$state/cordoned" ;;
    "drain "*)
        if [ -e "$state/lies" ]; then exit 0; fi
        case "$*" in
            *--disable-eviction*) ;;
            *) if [ -e "$state/budget" ]; then
                echo "Cannot evict pod as it would violate the pod's disruption budget." >&2; exit 1
            fi ;;
        esac
        rm -f "$state"/pods/web-* ;;
    "get pods")
        printf '{"items": ['; separator=
        for pod in "$state"/pods/*; do
            if [ -e "$pod" ]; then printf '%s' "$separator"; cat "$pod"; separator=,; fi
        done
        printf ']}' ;;
    "get node")
        cordoned=false; if [ -e "$state/cordoned" ]; then cordoned=true; fi
        ready=True; if [ -e "$state/sick" ]; then ready=False; fi
        printf '{"spec": {"unschedulable": %s}, "status": {"allocatable": {"memory": "%s"}, "conditions": [' "$cordoned" \
            "$(cat "$state/memory" 2>/dev/null || echo 1Gi)"
        printf '{"type": "Ready", "status": "%s", "message": "the kubelet stopped"}]}}' "$ready" ;;
    "get poddisruptionbudgets")
        printf '{"items": ['
        if [ -e "$state/budget" ]; then
            printf '{"metadata": {"name": "web", "namespace": "shop"}, "spec": {"selector": {"matchLabels": {"app": "web"}}},'
            printf '"status": {"disruptionsAllowed": 0}}'
        fi
        printf ']}' ;;
    *) echo "unknown: $*" >&2; exit 64 ;;
esac
"#;

const NOMAD: &str = r#"
case "$1 $2" in
    "node drain")
        case "$*" in
            *-disable*) rm -f "$state/ineligible" ;;
            *-force*) touch "$state/ineligible"; rm -f "$state"/allocations/* ;;
            *-enable*) touch "$state/ineligible"; if [ ! -e "$state/lies" ]; then rm -f "$state"/allocations/*; fi
                echo "All allocations on node have stopped" ;;
        esac ;;
    "node eligibility") rm -f "$state/ineligible" ;;
    "node status")
        eligible=eligible; if [ -e "$state/ineligible" ]; then eligible=ineligible; fi
        status=ready; if [ -e "$state/down" ]; then status=down; fi
        printf '{"ID": "n-1", "Status": "%s", "SchedulingEligibility": "%s", "Drain": false%s}' "$status" "$eligible" \
            "$(cat "$state/resources" 2>/dev/null)" ;;
    "operator api")
        for last in "$@"; do :; done
        test "$last" = /v1/node/n-1/allocations
        printf '['; separator=
        for one in "$state"/allocations/*; do
            if [ -e "$one" ]; then printf '%s' "$separator"; cat "$one"; separator=,; fi
        done
        printf ']' ;;
    *) echo "unknown: $*" >&2; exit 64 ;;
esac
"#;

const DOCKER: &str = r#"
list() { for one in "$state"/containers/*; do if [ -e "$one" ]; then basename "$one"; fi; done; }
verb=$1; shift
case $verb in
    ps)
        for id in $(list); do
            what=$(cat "$state/containers/$id")
            case "$*" in
                *--all*) echo "$id" ;;
                *) case $what in running*) echo "{\"ID\": \"$id\", \"Names\": \"$id-name\", \"State\": \"running\"}" ;; esac ;;
            esac
        done ;;
    inspect)
        printf '['; separator=
        for id in "$@"; do
            case $id in -*|container) continue ;; esac
            what=$(cat "$state/containers/$id"); running=false; health=healthy
            case $what in running*) running=true; health=${what#running } ;; esac
            printf '%s{"Id": "%s", "Name": "/%s-name", "State": {"Running": %s, "Health": {"Status": "%s"}}}' \
                "$separator" "$id" "$id" "$running" "$health"; separator=,
        done
        printf ']' ;;
    stop|kill|start|restart)
        for id in "$@"; do
            if [ ! -e "$state/containers/$id" ]; then continue; fi
            case $verb in
                start|restart) echo "running healthy" > "$state/containers/$id" ;;
                stop) if [ ! -e "$state/stubborn" ]; then echo exited > "$state/containers/$id"; fi ;;
                kill) echo exited > "$state/containers/$id" ;;
            esac
        done ;;
    *) echo "unknown: $*" >&2; exit 64 ;;
esac
"#;

const SYSTEMCTL: &str = r#"
verb=$1; shift
case $verb in
    daemon-reload) ;;
    reboot) touch "$state/rebooted" ;;
    show)
        for unit in "$@"; do
            case $unit in -*) continue ;; esac
            file=$state/units/$unit
            if [ ! -e "$file" ]; then
                printf 'Id=%s\nLoadState=not-found\nActiveState=inactive\nSubState=dead\n\n' "$unit"; continue
            fi
            read -r load active sub restarts < "$file"
            if [ -e "$state/flaps" ]; then
                # Every second look finds it the other way round.
                if [ -e "$state/flapped" ]; then rm "$state/flapped"; else touch "$state/flapped"; active=inactive; fi
            fi
            if [ -e "$state/loops" ]; then echo "$load $active $sub $((restarts + 1))" > "$file"; fi
            printf 'Id=%s\nLoadState=%s\nActiveState=%s\nSubState=%s\nResult=success\nNRestarts=%s\n\n' \
                "$unit" "$load" "$active" "$sub" "$restarts"
        done ;;
    stop|start|restart|kill)
        for unit in "$@"; do
            case $unit in -*) continue ;; esac
            if [ ! -e "$state/units/$unit" ]; then echo "Unit $unit not loaded." >&2; exit 5; fi
            read -r load active sub restarts < "$state/units/$unit"
            if [ "$load" = masked ]; then echo "Unit $unit is masked." >&2; exit 1; fi
            case $verb in
                start|restart) echo "loaded active running 0" > "$state/units/$unit" ;;
                stop) if [ ! -e "$state/flaps" ]; then echo "loaded inactive dead 0" > "$state/units/$unit"; fi ;;
                kill) rm -f "$state/flaps"; echo "loaded inactive dead 0" > "$state/units/$unit" ;;
            esac
        done ;;
    *) echo "unknown: $verb $*" >&2; exit 64 ;;
esac
"#;

impl Fake {
    pub(crate) fn kubectl() -> Result<Self> {
        Self::new("kubectl", KUBECTL, "pods")
    }

    pub(crate) fn nomad() -> Result<Self> {
        Self::new("nomad", NOMAD, "allocations")
    }

    pub(crate) fn docker() -> Result<Self> {
        Self::new("docker", DOCKER, "containers")
    }

    pub(crate) fn systemctl() -> Result<Self> {
        Self::new("systemctl", SYSTEMCTL, "units")
    }

    fn new(name: &'static str, body: &str, state: &str) -> Result<Self> {
        let fake = Self {
            folder: tempfile::tempdir()?,
            name,
        };
        durable::create_folder(&fake.state(state))?;
        let text = format!("{HEAD}{body}").replace("@STATE@", &fake.state("").display().to_string());
        durable::write(&fake.program(), text.as_bytes(), 0o755)?;
        Ok(fake)
    }

    /// The program.
    pub(crate) fn program(&self) -> PathBuf {
        self.folder.path().join(self.name)
    }

    /// A file of its state.
    pub(crate) fn state(&self, name: &str) -> PathBuf {
        self.folder.path().join("state").join(name)
    }

    pub(crate) fn put(&self, name: &str, content: &str) -> Result<()> {
        Ok(durable::write(&self.state(name), content.as_bytes(), 0o644)?)
    }

    pub(crate) fn remove(&self, name: &str) -> Result<()> {
        Ok(durable::remove(&self.state(name))?)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        fs::read_to_string(self.state(name)).unwrap_or_default()
    }

    /// What it was called with, one call a line.
    pub(crate) fn calls(&self) -> Vec<String> {
        self.text("calls").lines().map(ToOwned::to_owned).collect()
    }

    /// The lines of `[platform]` for the adapter `adapter`, with `more` in its table.
    pub(crate) fn lines(&self, adapter: &str, more: &str) -> String {
        format!(
            "adapter = {adapter:?}\n{adapter} = {{ program = {:?}, {more} }}\n",
            self.program().display().to_string()
        )
    }

    /// The platform that these settings make of it, on a node with the role `web` and its state in the fake's folder.
    pub(crate) fn platform(&self, adapter: &str, more: &str) -> Result<Box<dyn Platform>> {
        let text = format!(
            "[node]\nid = \"w1\"\nroles = [\"web\"]\n[platform]\n{}",
            self.lines(adapter, more)
        );
        let settings: Settings = kato_shared::settings::parse(std::path::Path::new("kato.toml"), &text)?;
        let paths = NodePaths::new(self.folder.path(), std::path::Path::new("/node"));
        Ok(platform::of(&settings, "w1", &paths, &Children::default()))
    }
}

/// A pod of the fake Kubernetes.
pub(crate) fn pod(name: &str, owner: &str, phase: &str, annotations: &str) -> String {
    let owners = match owner {
        "" => String::new(),
        kind => format!(r#"{{"kind": "{kind}", "controller": true}}"#),
    };
    format!(
        r#"{{"metadata": {{"name": "{name}", "namespace": "shop", "labels": {{"app": "web"}},
            "annotations": {{{annotations}}}, "ownerReferences": [{owners}]}}, "status": {{"phase": "{phase}"}}}}"#
    )
}

/// An allocation of the fake Nomad.
pub(crate) fn allocation(id: &str, status: &str, job: &str) -> String {
    format!(
        r#"{{"ID": "{id}", "Name": "shop.web[0]", "ClientStatus": "{status}", "Job": {{"Type": "{job}"}}}}"#
    )
}
