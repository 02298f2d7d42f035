//! SIGKILL of the node runner at every durable step, then the same command again: the same end state, and nothing left over.
//!
//! The places are learnt from an undisturbed run, which writes every visit of every place into a trace. Each visit is then
//! killed once, on a fresh copy of the node. What is compared is the product's whole tree: names, kinds, digests, modes,
//! link targets.

mod back;
mod drive;
mod kato;
mod policies;
mod site;

use anyhow::Result;

use crate::drive::Group;

/// The places before the first change of the node.
const BEFORE: &[&str] = &[
    "lock.taken",
    "attempt.written",
    "stage.file",
    "retire.owned",
    "retire.acted",
    "backup.archive",
    "backup.manifest",
    "backup.committed",
];
/// The place before each line of the journal.
const INTENT: &[&str] = &["journal.before"];
/// The place after each line of the journal.
const JOURNALLED: &[&str] = &["journal.appended"];
/// The places of the modules.
const MODULES: &[&str] = &[
    "module.cleaned",
    "module.unpacked",
    "module.noted",
    "module.placed",
    "module.exchanged",
    "module.set_aside",
    "module.linked",
];
/// The places where a note about a module was written: before its first change, and when it is installed.
const NOTES: &[&str] = &["undo.noted", "latch.written"];
/// The places of the overlay, and of the script that brings `kato` back.
const OVERLAY: &[&str] = &[
    "overlay.saved",
    "overlay.file",
    "overlay.removed",
    "undo.kept",
    "recover.written",
];
/// The places after the last change of the node.
const AFTER: &[&str] = &[
    "restart.acted",
    "rejoin.acted",
    "rejoin.disowned",
    "record.installed",
    "record.marker",
    "record.latch",
    "record.settled",
    "record.attempt",
];
/// The places of the way back. There every visit of every place is killed, these and those that both ways have.
const BACK: &[&str] = &[
    "rollback.decided",
    "undo.out",
    "undo.back",
    "undo.away",
    "undo.cleaned",
    "rollback.recorded",
];
/// The places of the policies that have no folder of their own, forward and back.
const POLICIES: &[&str] = &[
    "package.configured",
    "package.installed",
    "image.pulled",
    "image.tagged",
    "exec.acted",
    "undo.acted",
];
/// The places before the machine restarts.
const RESTART: &[&str] = &["resume.enabled"];
/// The places of a restoration; they are killed in the area `platform`.
const RESTORE: &[&str] = &[
    "restore.noted",
    "restore.staged",
    "restore.exchanged",
    "restore.recorded",
    "restore.done",
];
/// The places of the self-update.
const SELF_UPDATE: &[&str] = &["self_update.slot", "self_update.linked"];

/// The places of patches; `tests/patch/kills.rs` kills at every visit of these and of all others that patches pass.
const PATCHES: &[&str] = &["patch.recorded", "patch.kept", "patch.taken_out", "patch.settled"];

#[test]
fn every_place_belongs_to_a_test() {
    let mut tested: Vec<&str> = [
        BEFORE,
        INTENT,
        JOURNALLED,
        MODULES,
        NOTES,
        OVERLAY,
        AFTER,
        BACK,
        POLICIES,
        RESTART,
        SELF_UPDATE,
        PATCHES,
        RESTORE,
    ]
    .concat();
    let mut listed = kato_upgrader::failpoint::POINTS.to_vec();
    tested.sort_unstable();
    listed.sort_unstable();
    assert_eq!(tested, listed);
}

#[tokio::test(flavor = "multi_thread")]
async fn r41_killed_when_the_machine_is_about_to_restart() -> Result<()> {
    let site = site::Site::restarting().await?;
    for place in RESTART {
        let node = site.copy(place)?;
        drive::killed(&node, place)?;
        // The restart was not asked for, so the same command asks for it.
        node.upgrade_ends(75, &[])?;
        assert_eq!(node.calls("reboot"), 1);
        node.upgrade_ends(0, &["--resume"])?;
        assert_eq!(node.installed().as_deref(), Some("2.0.0"));
        assert!(!node.path("etc/systemd/system/kato-resume.service").exists());
        assert_eq!(node.leftovers()?, Vec::<std::path::PathBuf>::new());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r56_killed_before_the_first_change() -> Result<()> {
    drive::kill_everywhere(Group::Visits(BEFORE)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn r56_killed_before_every_line_of_the_journal() -> Result<()> {
    drive::kill_everywhere(Group::Visits(INTENT)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn r56_killed_after_every_line_of_the_journal() -> Result<()> {
    drive::kill_everywhere(Group::Visits(JOURNALLED)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn r57_killed_while_modules_are_installed() -> Result<()> {
    drive::kill_everywhere(Group::Visits(MODULES)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn r57_killed_when_a_note_about_a_module_was_written() -> Result<()> {
    drive::kill_everywhere(Group::Visits(NOTES)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn r57_killed_between_the_files_of_an_overlay() -> Result<()> {
    drive::kill_everywhere(Group::Visits(OVERLAY)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn r58_killed_while_the_upgrade_is_recorded() -> Result<()> {
    drive::kill_everywhere(Group::Visits(AFTER)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn r56_killed_again_and_again_on_the_way() -> Result<()> {
    drive::kill_everywhere(Group::EveryPlaceOnOneNode).await
}

#[tokio::test(flavor = "multi_thread")]
async fn r56_killed_at_any_time() -> Result<()> {
    drive::kill_everywhere(Group::AnyTime).await
}
