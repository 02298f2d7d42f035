//! Real children: their words, their ends, and what a killed run leaves of them.

use std::{fs, path::PathBuf};

use kato_shared::{clock::Clock, durable};
use tokio::process::Child;

use super::{
    name::{Name, Place, Process},
    *,
};
use crate::{lock, paths::NodePaths};

fn sh(script: &str) -> Vec<String> {
    ["sh", "-c", script].map(Into::into).into()
}

async fn run_for(script: &str, limit: Duration) -> Result<String, ProcessError> {
    run(&Children::default(), &sh(script), None, limit).await
}

const LONG: Duration = Duration::from_secs(30);

#[tokio::test]
async fn output_is_given_and_input_is_closed() {
    assert_eq!(run_for("echo hello; cat", LONG).await.unwrap(), "hello\n");
}

#[tokio::test]
async fn c11_a_failure_shows_the_status_and_the_last_fifty_lines() {
    let error = run_for("seq 1 60; echo why >&2; exit 3", LONG)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("exit status: 3") && error.ends_with("60\nwhy"),
        "{error}"
    );
    assert!(error.contains("\n12\n") && !error.contains("\n11\n"), "{error}");
    let error = run(&Children::default(), &["/nonexistent/program".into()], None, LONG)
        .await
        .unwrap_err();
    assert!(matches!(error, ProcessError::Start { .. }));
}

#[tokio::test]
async fn c20_a_command_that_hangs_is_stopped_with_all_its_children() {
    let error = run_for("echo waiting; sleep 600 & wait", Duration::from_millis(300))
        .await
        .unwrap_err();
    assert!(
        matches!(&error, ProcessError::Timeout { output, .. } if output == "waiting"),
        "{error}"
    );
}

#[tokio::test]
async fn c20_a_command_that_is_ended_may_put_its_things_in_order_first() {
    let script = "trap 'echo in order; exit 1' TERM; sleep 600 & wait";
    let error = run_for(script, Duration::from_millis(300)).await.unwrap_err();
    assert!(
        matches!(&error, ProcessError::Timeout { output, .. } if output == "in order"),
        "{error}"
    );
}

#[tokio::test]
async fn c20_a_command_that_nobody_waits_for_any_more_is_ended_also_when_it_hears_no_signal() {
    let folder = tempfile::tempdir().unwrap();
    let noted = folder.path().join("pid");
    let script = format!(
        "trap '' TERM; echo $$ > {0}.new; mv {0}.new {0}; sleep 600",
        noted.display()
    );
    let is_noted = async {
        while !noted.exists() {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        _ended = run_for(&script, LONG) => {}
        () = is_noted => {}
    }
    let pid = fs::read_to_string(&noted).unwrap();
    let process = Path::new("/proc").join(pid.trim());
    // Killed is killed, but the kernel and the runtime take their time to clean up.
    let is_alive = || fs::read_to_string(process.join("stat")).is_ok_and(|stat| !stat.contains(") Z"));
    let is_gone = async {
        while is_alive() {
            tokio::task::yield_now().await;
        }
    };
    assert!(
        tokio::time::timeout(LONG, is_gone).await.is_ok(),
        "{}",
        process.display()
    );
}

#[tokio::test]
async fn a_service_that_keeps_its_output_open_does_not_hold_the_run_back() {
    let output = run_for("sleep 5 & echo started", Duration::from_secs(4))
        .await
        .unwrap();
    assert_eq!(output, "started\n");
}

/// A node in a temporary folder whose commands are noted.
struct Noting {
    folder: tempfile::TempDir,
    paths: NodePaths,
    children: Children,
}

impl Noting {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let paths = NodePaths::new(folder.path(), Path::new("/var/kato"));
        let children = Children::of(&paths, Clock::system()).on("a test");
        children.begin().unwrap();
        Self {
            folder,
            paths,
            children,
        }
    }

    fn notes(&self) -> Vec<String> {
        let names = fs::read_dir(self.paths.commands()).unwrap();
        names
            .map(|item| item.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A command of a kato that is gone, of whose processes `services` may be services, and whose script is at work: it has made the
    /// file `ready`.
    async fn orphan(&self, script: &str, services: Services, ending: Option<u64>) -> Child {
        let argv = sh(&format!("{script}\ntouch ready; wait"));
        let output = (unnamed().unwrap(), unnamed().unwrap());
        let mut child = at_the_gate(&argv, Some(self.folder.path()), output).unwrap();
        let name = Name {
            child: table::process(child.id().unwrap().try_into().unwrap()).unwrap(),
            kato: Process { pid: 2, started: 1 },
            place: Place::new(
                lock::pid_namespace().as_deref(),
                &lock::boot_id(self.paths.root()),
            ),
            ending: None,
        };
        let text = children::Text {
            argv,
            what: "a test".into(),
            since: Clock::system().now(),
            services,
        };
        let note = |name: &Name| self.paths.commands().join(name.to_string());
        durable::write_json(&note(&name), &text, 0o600).unwrap();
        if ending.is_some() {
            let ending = Name {
                ending,
                ..name.clone()
            };
            File::create_new(note(&ending)).unwrap();
        }
        let gate = child.stdin.take().unwrap();
        gate::open(gate, &name.to_string()).await.unwrap();
        let ready = self.path("ready");
        until(|| ready.exists()).await;
        child
    }

    /// What was left at work, and how many commands are over and have left services.
    async fn left(&self) -> (Option<Orphan>, usize) {
        let left = self.children.left().await.unwrap();
        assert!(left.strange.is_empty() && left.unseen.is_empty() && left.minded.is_empty());
        let [over, orphans] = [left.over, left.orphans].map(|all| <[Orphan; 1]>::try_from(all).ok());
        let is_over = over.is_some_and(|[over]| !over.services().is_empty());
        (orphans.map(|[orphan]| orphan), usize::from(is_over))
    }

    /// Kills what a test has left on purpose.
    async fn kill(&self, pid_file: &str) {
        let pid = fs::read_to_string(self.path(pid_file)).unwrap();
        let _gone = run(&Children::default(), &sh(&format!("kill -9 {pid}")), None, LONG).await;
    }
}

async fn until(is_so: impl Fn() -> bool) {
    let is_so = async {
        while !is_so() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, is_so).await.unwrap();
}

fn is_alive(pid_file: &Path) -> bool {
    let pid = fs::read_to_string(pid_file).unwrap();
    table::process(pid.trim().parse().unwrap()).is_some()
}

#[tokio::test]
async fn a_command_is_noted_before_it_acts_and_until_its_end_was_seen() {
    let node = Noting::new();
    let script = format!("ls {}; echo $$; cat", node.paths.commands().display());
    let said = run(&node.children, &sh(&script), None, LONG).await.unwrap();
    let lines: Vec<_> = said.lines().collect();
    let [listed, pid] = lines[..] else {
        panic!("{said}");
    };
    assert!(listed.starts_with(&format!("{pid}-")), "{said}");
    assert_eq!(node.notes(), Vec::<String>::new());
    let error = run(&node.children, &sh("exit 7"), None, LONG).await.unwrap_err();
    assert!(matches!(error, ProcessError::Status { status, .. } if status.code() == Some(7)));
    let error = run(&node.children, &["/nonexistent/program".into()], None, LONG).await;
    assert_eq!(
        error.unwrap_err().to_string(),
        "starting `/nonexistent/program` failed"
    );
    let limit = Duration::from_millis(300);
    let error = run(&node.children, &sh("sleep 600 & wait"), None, limit).await;
    assert!(matches!(error, Err(ProcessError::Timeout { .. })));
    assert_eq!(node.notes(), Vec::<String>::new());
}

#[tokio::test]
async fn a_command_that_cannot_be_noted_never_runs() {
    let node = Noting::new();
    fs::remove_dir(node.paths.commands()).unwrap();
    let argv = ["touch".to_owned(), node.path("ran").display().to_string()];
    let error = run(&node.children, &argv, None, LONG).await.unwrap_err();
    assert!(matches!(error, ProcessError::Unnoted { .. }), "{error}");
    assert!(!node.path("ran").exists());
    fs::create_dir(node.paths.commands()).unwrap();
    run(&node.children, &argv, None, LONG).await.unwrap();
    assert!(node.path("ran").exists());
}

#[tokio::test]
async fn an_orphan_is_ended_with_its_group_also_when_it_hears_no_signal() {
    let node = Noting::new();
    let script = "trap '' TERM; sleep 600 & echo $! > sleeper";
    let mut child = node.orphan(script, Services::Any, None).await;
    let orphan = node.left().await.0.unwrap();
    assert_eq!(orphan.pid().try_into(), Ok(child.id().unwrap()));
    assert_eq!((orphan.others().len(), orphan.services().len()), (1, 0));
    orphan.end().await.unwrap();
    assert!(child.try_wait().unwrap().is_some());
    assert!(!is_alive(&node.path("sleeper")));
    assert_eq!(node.notes(), Vec::<String>::new());
    assert!(node.left().await.0.is_none());
}

/// A child in a session of its own that hears no signal, with a child of its own.
const DEEP: &str = "setsid sh -c 'trap \"\" TERM; echo $$ > deep; sleep 600 & echo $! > deeper; touch there; wait' & \
                    while ! [ -e there ]; do sleep 0.01; done";

#[tokio::test]
async fn an_orphan_is_ended_with_what_it_started_in_sessions_of_their_own() {
    let node = Noting::new();
    let mut child = node.orphan(DEEP, Services::Any, None).await;
    let orphan = node.left().await.0.unwrap();
    assert_eq!((orphan.others().len(), orphan.services().len()), (2, 0));
    orphan.end().await.unwrap();
    assert!(child.try_wait().unwrap().is_some());
    assert!(!is_alive(&node.path("deep")) && !is_alive(&node.path("deeper")));
    assert_eq!(node.notes(), Vec::<String>::new());
}

#[tokio::test]
async fn c20_a_command_that_hangs_is_stopped_with_what_it_started_in_sessions_of_their_own() {
    let node = Noting::new();
    let script = format!("cd {}; {DEEP}; wait", node.folder.path().display());
    let hanging = run(&node.children, &sh(&script), None, Duration::from_secs(2)).await;
    assert!(matches!(hanging, Err(ProcessError::Timeout { .. })));
    until(|| !is_alive(&node.path("deep")) && !is_alive(&node.path("deeper"))).await;
    assert_eq!(node.notes(), Vec::<String>::new());
}

/// A service as it is well made: in a session of its own, and its parent is gone.
const SERVICE: &str =
    "(setsid sh -c 'echo $$ > service; exec sleep 600' &); while ! [ -s service ]; do sleep 0.01; done";

#[tokio::test]
async fn a_service_that_an_orphan_has_started_goes_on_and_is_told() {
    for (services, goes_on) in [
        (Services::None, false),
        (Services::Detached, true),
        (Services::Any, true),
    ] {
        let node = Noting::new();
        let script = format!("{SERVICE}; sleep 600 &");
        let mut child = node.orphan(&script, services, None).await;
        let orphan = node.left().await.0.unwrap();
        assert_eq!(orphan.services().len(), usize::from(goes_on), "{services:?}");
        orphan.end().await.unwrap();
        assert!(child.try_wait().unwrap().is_some());
        assert_eq!(is_alive(&node.path("service")), goes_on, "{services:?}");
        assert_eq!(node.notes(), Vec::<String>::new());
        node.kill("service").await;
    }
}

#[tokio::test]
async fn what_a_command_left_that_was_killed_from_outside_is_ended_and_its_services_are_told() {
    for (services, is_orphan) in [
        (Services::None, true),
        (Services::Detached, true),
        (Services::Any, false),
    ] {
        let node = Noting::new();
        let script = format!("{SERVICE}; sleep 600 & echo $! > sleeper");
        let mut child = node.orphan(&script, services, None).await;
        child.kill().await.unwrap();
        let (orphan, over) = node.left().await;
        assert_eq!(
            (orphan.is_some(), over),
            (is_orphan, usize::from(!is_orphan)),
            "{services:?}"
        );
        if let Some(orphan) = orphan {
            assert_eq!((orphan.others().len(), orphan.services().len()), (1, 1));
            orphan.end().await.unwrap();
        }
        assert_eq!(is_alive(&node.path("sleeper")), !is_orphan, "{services:?}");
        assert!(is_alive(&node.path("service")), "{services:?}");
        assert_eq!(node.notes(), Vec::<String>::new());
        node.kill("sleeper").await;
        node.kill("service").await;
    }
}

#[tokio::test]
async fn what_somebody_was_ending_is_ended_also_without_its_first_and_nothing_that_came_later() {
    let ticks = table::ticks(Duration::from_secs(5));
    for (ending, is_orphan) in [(None, false), (Some(ticks), true), (Some(1), false)] {
        let node = Noting::new();
        // Without the mark only the group's number is known.
        let script = "env -i sleep 600 & echo $! > sleeper; touch ready; exit 0";
        let mut child = node.orphan(script, Services::Any, ending).await;
        child.wait().await.unwrap();
        let (orphan, over) = node.left().await;
        assert_eq!((orphan.is_some(), over), (is_orphan, 0), "{ending:?}");
        if let Some(orphan) = orphan {
            orphan.end().await.unwrap();
        }
        assert_eq!(is_alive(&node.path("sleeper")), !is_orphan, "{ending:?}");
        assert_eq!(node.notes(), Vec::<String>::new());
        node.kill("sleeper").await;
    }
}

#[tokio::test]
async fn a_file_that_is_no_note_is_told_and_stays() {
    let node = Noting::new();
    let strange = node.paths.commands().join("4711-7");
    File::create_new(&strange).unwrap();
    assert_eq!(node.children.left().await.unwrap().strange, vec![strange.clone()]);
    assert!(strange.exists());
}

#[tokio::test]
async fn commands_of_a_kato_that_is_there_are_left_alone() {
    let node = Noting::new();
    // Another process that looks while this one has a command at work.
    let other = Process { pid: 3, started: 1 };
    let here = Place::new(
        lock::pid_namespace().as_deref(),
        &lock::boot_id(node.paths.root()),
    );
    let looks = async {
        until(|| !node.notes().is_empty()).await;
        let left = orphans::left(&node.paths.commands(), other, &here).await.unwrap();
        (left.orphans.len(), left.minded.len(), node.notes().len())
    };
    let argv = sh("sleep 600");
    tokio::select! {
        _ended = run(&node.children, &argv, None, LONG) => panic!("it ended"),
        seen = looks => assert_eq!(seen, (0, 1, 1)),
    }
}
