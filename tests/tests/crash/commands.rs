//! Commands that outlive a killed `kato`: the next run ends them before it does anything, so that none acts behind its back and
//! no second one of a kind runs beside the first.
//!
//! Every command of these nodes goes through `watched.sh`, which tells when it begins and ends. One is slow, `kato` is killed
//! while it is at work, and the same command line comes again. What counts is that it is the node's end state, as without the
//! kill, and what the log of the commands says.

use std::{
    fs,
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::{Child, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use integration_tests::{
    command,
    node::{TestNode, names},
    wait,
};
use kato_shared::durable;

use crate::{
    report::Report,
    site::{Kind, Site},
    stage::{LONG, State, Visit, said},
};

const UPGRADE: &[&str] = &["node", "upgrade", "--skip-confirmation"];

/// The verbs of the platform that an upgrade uses.
const VERBS: &[&str] = &[
    "retire", "resident", "backup", "restart", "health", "version", "rejoin",
];

/// A site of `kind` where every command is watched.
async fn watched(kind: Kind) -> Result<Site> {
    let mut site = Site::new(kind).await?;
    let script = site.node.root().with_file_name("watched.sh");
    durable::write(&script, include_bytes!("watched.sh"), 0o755)?;
    let platform = site.node.root().with_file_name("platform.sh");
    let [script, platform] = [script, platform].map(|path| path.display().to_string());
    let line = |verb: &&str| {
        let words = [
            script.as_str(),
            verb,
            "{root}",
            platform.as_str(),
            verb,
            "{root}",
            "{version}",
            "{dir}",
        ];
        format!("{verb} = {{ argv = {words:?} }}\n")
    };
    let lines: String = VERBS.iter().chain(&["restore"]).map(line).collect();
    site.node.platform_is(&lines)?;
    for program in ["podman", "dpkg"] {
        watch_program(&site.node, program)?;
    }
    Ok(site)
}

/// Puts the script before a program of the node, or of the machine.
fn watch_program(node: &TestNode, name: &str) -> Result<()> {
    let own = node.root().with_file_name("bin").join(name);
    let real = if own.exists() {
        let real = own.with_file_name(format!("{name}-itself"));
        durable::rename(&own, &real)?;
        format!("$here/{name}-itself")
    } else {
        format!("/usr/bin/{name}")
    };
    let text = format!(
        "#!/bin/sh\nhere=$(dirname \"$0\")\nexec \"$here/../watched.sh\" \"{name}\" \"$here/../root\" \"{real}\" \"$@\"\n"
    );
    node.add_program(name, &text)
}

/// What the commands have told.
fn acts(node: &TestNode) -> Vec<String> {
    let text = node.text("platform/acts").unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// The process of the first command of `kind` that has begun.
fn begun(node: &TestNode, kind: &str) -> Option<u32> {
    let start = format!("begin {kind} ");
    let acts = acts(node);
    let pid = acts.iter().find_map(|act| act.strip_prefix(&start))?;
    pid.parse().ok()
}

/// Whether a process has not ended.
fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(')').map(|(_, rest)| rest.trim_start());
    state.is_some_and(|state| !state.starts_with(['Z', 'X']))
}

/// Starts `kato` and waits until its command `kind`, which is slow, is at work; gives both.
fn with_a_slow_command(node: &TestNode, arguments: &[&str], kind: &str) -> Result<(Child, u32)> {
    node.put(&format!("platform/slow-{kind}"), "")?;
    let mut kato = node
        .kato(arguments)?
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let pid = wait::until(&format!("a `{kind}` at work"), LONG, || {
        let has_ended = kato.try_wait().ok().flatten().is_some();
        begun(node, kind).map(Some).or_else(|| has_ended.then_some(None))
    })?;
    let pid = pid.with_context(|| format!("the run ended without a `{kind}`: {:?}", acts(node)))?;
    Ok((kato, pid))
}

/// Kills `kato` while its command `kind` is at work; gives the command's process.
fn killed_beside(node: &TestNode, arguments: &[&str], kind: &str) -> Result<u32> {
    let (mut kato, pid) = with_a_slow_command(node, arguments, kind)?;
    kato.kill()?;
    let status = command::end(&mut kato, "a killed kato", LONG)?;
    ensure!(status.signal() == Some(9), "{status}");
    ensure!(
        is_alive(pid),
        "the command did not outlive its kato, so nothing is tested"
    );
    fs::remove_file(node.path(&format!("platform/slow-{kind}")))?;
    Ok(pid)
}

/// What is wrong about the command `kind`, the process `pid`, after a run that came later and said `said`.
fn still_wrong(node: &TestNode, kind: &str, pid: u32, said: &str) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    if is_alive(pid) {
        wrong.push(format!("the `{kind}` of the killed run is still there"));
    }
    // Were it there, it would act now.
    node.put("platform/go-on", "")?;
    let acts = acts(node);
    if acts.contains(&format!("end {kind} {pid}")) {
        wrong.push(format!("the `{kind}` of the killed run has acted: {acts:?}"));
    }
    wrong.extend(acts.iter().filter(|act| act.starts_with("two ")).cloned());
    if !(said.contains(&format!("(process {pid}, "))
        && said.contains("left at work by a run that was killed"))
    {
        wrong.push(format!("nothing was said about it: {said}"));
    }
    let audit = fs::read_to_string(node.state("audit/audit.jsonl"))?;
    if !(audit.contains("\"what\":\"end-command\"") && audit.contains(&format!("\"pid\":\"{pid}\""))) {
        wrong.push("it is not in the audit log".into());
    }
    let notes = names(&node.state("state/commands"));
    wrong.extend(notes.iter().map(|note| format!("the note {note} is left")));
    Ok(wrong)
}

/// Kills an upgrade while each of `kinds` is at work in it, then runs it again.
async fn in_an_upgrade(name: &str, site: Kind, ends: &[i32], kinds: &[&str]) -> Result<()> {
    let site = watched(site).await?;
    let undisturbed = site.node.copy_to(&site.place("undisturbed"))?;
    undisturbed.upgrade_ends(ends[0], &[])?;
    let expected = State::of(&undisturbed)?;
    let mut report = Report::new(name, "killed", 0, &[]);
    for kind in kinds {
        let node = site.node.copy_to(&site.place("killed"))?;
        if *kind == "restart" {
            // One that has to be killed.
            node.put("platform/deaf", "")?;
        }
        let pid = killed_beside(&node, UPGRADE, kind)?;
        let output = command::run(node.kato(UPGRADE)?, LONG, &[])?;
        let said = said(&output);
        ensure!(
            output.status.code().is_some_and(|code| ends.contains(&code)),
            "{kind}: again ended with {}: {said}",
            output.status
        );
        let mut found = still_wrong(&node, kind, pid, &said)?;
        found.extend(State::of(&node)?.differences(&expected));
        let name = format!("command {kind}:1");
        report.took(&Visit { call: 0, name }, found);
        fs::remove_dir_all(site.place("killed"))?;
    }
    report.close()
}

#[tokio::test(flavor = "multi_thread")]
async fn r56_killed_while_a_command_of_the_platform_is_at_work() -> Result<()> {
    in_an_upgrade("commands", Kind::Plain, &[0], VERBS).await
}

#[tokio::test(flavor = "multi_thread")]
async fn r57_killed_while_a_command_of_a_module_or_a_check_is_at_work() -> Result<()> {
    let kinds = ["podman", "migrate-is", "migrate-up", "check"];
    in_an_upgrade("commands-modules", Kind::Checked, &[0], &kinds).await
}

#[tokio::test(flavor = "multi_thread")]
async fn c23_killed_while_a_command_takes_a_module_back() -> Result<()> {
    // Killed on the way back, the next run ends it; killed after it was complete, there is nothing to do.
    in_an_upgrade(
        "commands-back",
        Kind::PoliciesFailing,
        &[22, 20],
        &["migrate-down"],
    )
    .await
}

/// Kills an upgrade and not its command `kind`, which has started a helper as `how` says, and gives both processes.
fn killed_with_a_helper(node: &TestNode, kind: &str, how: &str) -> Result<(u32, u32)> {
    node.put(&format!("platform/{how}"), "")?;
    let pid = killed_beside(node, UPGRADE, kind)?;
    let helper = node
        .text("platform/helper-pid")
        .unwrap_or_default()
        .trim()
        .parse()?;
    ensure!(is_alive(helper), "there is no helper, so nothing is tested");
    Ok((pid, helper))
}

#[tokio::test(flavor = "multi_thread")]
async fn r56_what_a_command_started_in_a_session_of_its_own_ends_with_it() -> Result<()> {
    let site = watched(Kind::Checked).await?;
    for kind in ["retire", "migrate-up", "restart"] {
        let node = site.node.copy_to(&site.place("killed"))?;
        let (pid, helper) = killed_with_a_helper(&node, kind, "deep")?;
        let output = command::run(node.kato(UPGRADE)?, LONG, &[])?;
        let said = said(&output);
        ensure!(output.status.success(), "{kind}: {said}");
        assert_eq!(still_wrong(&node, kind, pid, &said)?, Vec::<String>::new());
        ensure!(!is_alive(helper), "{kind}: its helper {helper} is there: {said}");
        ensure!(said.contains(&format!("{helper} (")), "{kind}: {said}");
        fs::remove_dir_all(site.place("killed"))?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r56_what_a_command_left_that_was_killed_as_well_is_ended_or_told() -> Result<()> {
    let site = watched(Kind::Checked).await?;
    for (kind, is_service) in [("migrate-up", false), ("retire", false), ("restart", true)] {
        let node = site.node.copy_to(&site.place("killed"))?;
        let (pid, helper) = killed_with_a_helper(&node, kind, "helper")?;
        command::ok(&["kill", "-9", &pid.to_string()])?;
        let output = command::run(node.kato(UPGRADE)?, LONG, &[])?;
        let said = said(&output);
        ensure!(output.status.success(), "{kind}: {said}");
        let told = if is_service {
            "taken for services"
        } else {
            "left at work by a run that was killed"
        };
        ensure!(
            said.contains(told) && said.contains(&format!("{helper} (")),
            "{kind}: {said}"
        );
        ensure!(is_alive(helper) == is_service, "{kind}: {said}");
        assert_eq!(
            names(&node.state("state/commands")),
            Vec::<String>::new(),
            "{kind}"
        );
        if is_service {
            command::ok(&["kill", "-9", &helper.to_string()])?;
        }
        fs::remove_dir_all(site.place("killed"))?;
    }
    Ok(())
}

/// Needs root: dpkg does.
pub(crate) mod as_root {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn r57_killed_while_packages_are_at_work() -> Result<()> {
        in_an_upgrade("commands-packages", Kind::Packages, &[0], &["dpkg"]).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c01_a_retire_of_a_killed_kato_is_ended_before_the_node_is_put_back() -> Result<()> {
    let site = watched(Kind::Plain).await?;
    let node = &site.node;
    let pid = killed_beside(node, &["node", "retire"], "retire")?;
    let output = command::run(node.kato(&["node", "rejoin"])?, LONG, &[])?;
    ensure!(output.status.success(), "{}", said(&output));
    assert_eq!(
        still_wrong(node, "retire", pid, &said(&output))?,
        Vec::<String>::new()
    );
    assert!(!node.path("platform/retired").exists());
    assert!(!node.state("state/out-of-service.json").exists());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn c03_the_commands_of_a_run_that_is_alive_are_left_alone() -> Result<()> {
    let site = watched(Kind::Plain).await?;
    let node = &site.node;
    let (mut kato, pid) = with_a_slow_command(node, UPGRADE, "retire")?;
    for (arguments, code) in [
        (&["status"][..], 0),
        (&["node", "upgrade", "--status"], 0),
        (UPGRADE, 25),
        (&["node", "rejoin"], 25),
    ] {
        let output = command::run(node.kato(arguments)?, LONG, &[])?;
        let ended = output.status.code();
        ensure!(
            ended == Some(code) || code == 0,
            "{arguments:?}: {ended:?} {}",
            said(&output)
        );
        ensure!(is_alive(pid), "{arguments:?} has ended the command");
    }
    assert_eq!(names(&node.state("state/commands")).len(), 1);
    node.put("platform/go-on", "")?;
    let status = command::end(&mut kato, "an undisturbed kato", LONG)?;
    ensure!(status.success(), "{status}: {:?}", acts(node));
    assert_eq!(node.installed().as_deref(), Some("2.0.0"));
    assert_eq!(names(&node.state("state/commands")), Vec::<String>::new());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r06_a_command_of_core_that_outlives_its_kato_is_ended_before_the_next_one_acts() -> Result<()> {
    let mut site = Site::new(Kind::Plain).await?;
    let script = site.node.root().with_file_name("mode.sh");
    let text = "#!/bin/sh\necho $$ > \"$1.new\"; mv \"$1.new\" \"$1\"; while :; do sleep 0.2; done\n";
    durable::write(&script, text.as_bytes(), 0o755)?;
    let on = site.node.path("platform/turning-on");
    let lines =
        format!("[maintenance]\non = {{ argv = [{script:?}, {on:?}] }}\noff = {{ argv = [\"true\"] }}\n");
    site.node.add_settings(&lines)?;
    let node = &site.node;
    let mut kato = node
        .kato(&["maintenance", "on"])?
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let pid: u32 = wait::until("the command at work", LONG, || {
        node.text("platform/turning-on")?.trim().parse().ok()
    })?;
    kato.kill()?;
    command::end(&mut kato, "a killed kato", LONG)?;
    ensure!(
        is_alive(pid),
        "the command did not outlive its kato, so nothing is tested"
    );
    let output = command::run(node.kato(&["maintenance", "off"])?, LONG, &[])?;
    ensure!(output.status.success(), "{}", said(&output));
    ensure!(!is_alive(pid), "{}", said(&output));
    ensure!(
        said(&output).contains("left at work by a run that was killed"),
        "{}",
        said(&output)
    );
    let audit = fs::read_to_string(node.state("audit/audit.jsonl"))?;
    ensure!(audit.contains("\"what\":\"end-command\""), "{audit}");
    assert_eq!(names(&node.state("state/core-commands")), Vec::<String>::new());
    Ok(())
}

/// How often a run came by `place`, from its trace.
fn visits(trace: &Path, place: &str) -> Result<usize> {
    let text = fs::read_to_string(trace).context("`kato` must be built with its feature `test-util`")?;
    let start = format!("{place}:");
    Ok(text.lines().filter(|line| line.starts_with(&start)).count())
}

fn count_begun(node: &TestNode) -> usize {
    acts(node).iter().filter(|act| act.starts_with("begin ")).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn r56_a_command_that_was_not_let_loose_before_the_kill_never_runs() -> Result<()> {
    let site = watched(Kind::Plain).await?;
    let undisturbed = site.node.copy_to(&site.place("undisturbed"))?;
    undisturbed.upgrade_ends(0, &[])?;
    let commands = count_begun(&undisturbed);
    ensure!(commands > 5, "only {commands} commands, so little is tested");
    let expected = State::of(&undisturbed)?;
    let mut report = Report::new("gate", "killed", 0, &[]);
    for place in ["child.spawned", "child.noted"] {
        for nth in 1..=commands {
            let node = site.node.copy_to(&site.place("killed"))?;
            let name = format!("{place}:{nth}");
            let mut kato = node.kato(UPGRADE)?;
            kato.env("KATO_KILL_AT", &name);
            let output = command::run(kato, LONG, &[])?;
            ensure!(output.status.signal() == Some(9), "{name}: {}", said(&output));
            let trace = site.place("trace");
            let mut kato = node.kato(UPGRADE)?;
            kato.env("KATO_KILL_TRACE", &trace);
            let output = command::run(kato, LONG, &[])?;
            ensure!(output.status.success(), "{name}: {}", said(&output));
            let mut found = State::of(&node)?.differences(&expected);
            let (begun, allowed) = (count_begun(&node), nth - 1 + visits(&trace, "child.spawned")?);
            if begun != allowed {
                found.push(format!(
                    "{begun} commands began, expected {allowed}: {:?}",
                    acts(&node)
                ));
            }
            found.extend(names(&node.state("state/commands")));
            report.took(&Visit { call: 0, name }, found);
            fs::remove_file(&trace)?;
            fs::remove_dir_all(site.place("killed"))?;
        }
    }
    report.close()
}
