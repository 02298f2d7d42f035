//! `kato` on a node, as Core calls it: the commands, their arguments, and what they answer.
//!
//! | Call | Command on the node |
//! |---|---|
//! | [`RemoteNode::status`] | `kato node upgrade --status --json` |
//! | [`RemoteNode::survey`] | `kato node survey --measure PATH…` |
//! | [`RemoteNode::start`] | `kato node upgrade --skip-confirmation --detach --run ID --version V` |
//! | [`RemoteNode::follow`] | `kato node events --after N --follow` |
//! | [`RemoteNode::run`] | anything short, such as `kato patch status --local --json` |
//!
//! A started run belongs to the node: it outlives the connection and Core's own `kato`.

pub(super) mod answer;
mod start;

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::sync::mpsc;

pub use self::start::{Start, StartRequest};
use super::inventory::InventoryNode;
use crate::{
    exit::Exit,
    plan::{facts::NodeStatus, preflight::Problem, survey::Survey},
    run::survey::Asked,
    ssh::{Ended, Host, HostError, Output, RemoteCommand, secret::Secret},
};

/// How long a node may take to say how it is; it reads a few small files.
const STATUS_DEADLINE: Duration = Duration::from_secs(30);
/// How long a node that can be reached takes at most for a command that does nothing.
const PROBE_DEADLINE: Duration = Duration::from_secs(10);
/// How long a node may take to measure the folders that an upgrade saves; they may have millions of files.
const SURVEY_DEADLINE: Duration = Duration::from_secs(300);
/// How long a node may take until its run has begun; it reads the release metadata on the way.
const START_DEADLINE: Duration = Duration::from_secs(180);
/// sudo that reads the password from its standard input, also when it was asked a moment ago (`-k`): else the password would be
/// left for the program.
const SUDO_WITH_PASSWORD: [&str; 5] = ["sudo", "-S", "-k", "-p", ""];
/// A shell's exit code for a program that is not there, and for one that is not a program.
const NOT_THERE: [i32; 2] = [127, 126];
/// How a `kato` ends that does not know one of the words it is given: [`Exit::Usage`].
const REFUSED_WORDS: Ended = Ended::Exit(2);

/// Runs `kato` of one node.
#[derive(Debug, Clone)]
pub struct RemoteNode {
    /// The node.
    pub node: InventoryNode,
    host: Arc<dyn Host>,
    prefix: Vec<String>,
    program: PathBuf,
    /// Variables for every call, passed as arguments: sudo and sshd do not let them through by themselves.
    env: Vec<(String, String)>,
    /// The orchestrator's token, shown with every call.
    fence: Option<u64>,
    /// sudo's password, verified; with it sudo reads it from its standard input instead of refusing to ask.
    password: Option<Secret>,
}

impl RemoteNode {
    /// `kato` at `program` on `node`, reached by `host`, run by `sudo -n` when `sudo`.
    pub fn new(node: InventoryNode, host: Arc<dyn Host>, program: PathBuf, sudo: bool) -> Self {
        let prefix = if sudo {
            vec!["sudo".into(), "-n".into()]
        } else {
            Vec::new()
        };
        Self {
            node,
            host,
            prefix,
            program,
            env: Vec::new(),
            fence: None,
            password: None,
        }
    }

    /// Whether `kato` is run by sudo there.
    pub(super) fn is_by_sudo(&self) -> bool {
        !self.prefix.is_empty()
    }

    /// Whether sudo lets us in there by a rule, without a password.
    pub(super) fn is_let_in(&self) -> bool {
        self.is_by_sudo() && self.password.is_none()
    }

    /// Whether sudo refuses without a password: it ends with 1 by itself, and `kato` never does unless it is a bug.
    pub(super) async fn wants_password(&self) -> Result<bool, HostError> {
        let status = self.command(&["node", "upgrade", "--status", "--json"], Some(STATUS_DEADLINE));
        Ok(self.host.run(&status).await?.ended == Ended::Exit(1))
    }

    /// Whether sudo takes `password`. Nothing is run.
    pub(super) async fn takes(&self, password: &Secret) -> Result<bool, HostError> {
        let argv = SUDO_WITH_PASSWORD.iter().chain(&["-v"]);
        let command = RemoteCommand {
            argv: argv.map(|word| (*word).to_owned()).collect(),
            env: Vec::new(),
            deadline: Some(STATUS_DEADLINE),
            input: Some(password.clone()),
        };
        Ok(self.host.run(&command).await?.ended.is_success())
    }

    /// The same node, whose sudo gets `password`.
    pub(super) fn with_password(mut self, password: Secret) -> Self {
        self.prefix = SUDO_WITH_PASSWORD.map(String::from).to_vec();
        self.password = Some(password);
        self
    }

    /// The same node, to which every call shows the token of the orchestrator's lease: once a greater one was shown to it, it
    /// refuses.
    #[must_use]
    pub fn fenced(mut self, token: u64) -> Self {
        self.fence = Some(token);
        self
    }

    /// The same node with variables for every call.
    #[must_use]
    pub fn with_env(mut self, env: Vec<(String, String)>) -> Self {
        self.env = env;
        self
    }

    /// Asks how the node is.
    ///
    /// # Errors
    /// The [`Problem`] of not getting an answer.
    pub async fn status(&self) -> Result<NodeStatus, Problem> {
        let command = self.command(&["node", "upgrade", "--status", "--json"], Some(STATUS_DEADLINE));
        let output = match self.host.run(&command).await {
            Ok(output) => output,
            Err(error) => return Err(self.silence(&error).await),
        };
        if output.ended == REFUSED_WORDS
            && let Some(kato) = self.without_fences().await
        {
            return Err(Problem::NoFences { kato });
        }
        answer::read(&output.stdout).map_err(|said| self.no_status(&output, &said))
    }

    /// Why a call brought no answer: a `kato` that hangs is put right elsewhere than a connection, so that a node which kept us waiting is
    /// asked for something that needs neither `kato` nor sudo nor a disk.
    async fn silence(&self, error: &HostError) -> Problem {
        if let HostError::Deadline {
            command, deadline, ..
        } = error
        {
            let probe = RemoteCommand {
                argv: vec!["true".into()],
                env: Vec::new(),
                deadline: Some(PROBE_DEADLINE),
                input: None,
            };
            let answered = self.host.run(&probe).await;
            if answered.is_ok_and(|output| output.ended.is_success()) {
                return Problem::Hangs {
                    command: command.clone(),
                    deadline: *deadline,
                };
            }
        }
        Problem::Unreachable {
            detail: error.to_string(),
        }
    }

    /// The version of a `kato` that answers when it is shown no token, and so does not know them.
    async fn without_fences(&self) -> Option<String> {
        self.fence?;
        let unfenced = Self {
            fence: None,
            ..self.clone()
        };
        let command = unfenced.command(&["node", "upgrade", "--status", "--json"], Some(STATUS_DEADLINE));
        let output = self.host.run(&command).await.ok()?;
        let status: NodeStatus = answer::read(&output.stdout).ok()?;
        Some(status.kato)
    }

    fn no_status(&self, output: &Output, said: &str) -> Problem {
        let program = self.shown();
        if output.ended.is_success() {
            let said = said.to_owned();
            return Problem::NotUnderstood { program, said };
        }
        let is_missing = matches!(output.ended, Ended::Exit(code) if NOT_THERE.contains(&code));
        // sudo ends with 1 for a program that is not there.
        let last = answer::last_words(&output.stderr);
        let sudo_missed_it = last.starts_with("sudo: ") && last.ends_with(": command not found");
        if is_missing || sudo_missed_it {
            return Problem::NoKato { program };
        }
        // A node answers so to one alone: to whom it has seen a successor of.
        if self.fence.is_some() && output.ended == Ended::Exit(Exit::LockHeld.code().into()) {
            return Problem::Superseded;
        }
        Problem::NoStatus {
            program,
            ended: output.ended,
            error: answer::last_words(&output.stderr).to_owned(),
            hint: answer::hint(&output.stderr).map(str::to_owned),
        }
    }

    /// Sends the lines of all events after `after` to `lines`, until the run ends or nothing runs.
    ///
    /// # Errors
    /// [`HostError`] when the connection broke.
    pub async fn follow(&self, after: u64, lines: mpsc::Sender<String>) -> Result<Output, HostError> {
        let after = after.to_string();
        let command = self.command(&["node", "events", "--after", &after, "--follow"], None);
        self.host.lines(&command, lines).await
    }

    /// Runs `kato` with `arguments` to its end, within `deadline`.
    ///
    /// # Errors
    /// [`HostError`]: what was begun on the node may go on.
    pub async fn run(&self, arguments: &[&str], deadline: Duration) -> Result<Output, HostError> {
        self.host.run(&self.command(arguments, Some(deadline))).await
    }

    /// Has what is `asked` measured on the node; `None` when its `kato` does not know how.
    ///
    /// # Errors
    /// The [`Problem`] of not getting an answer.
    pub async fn survey(&self, asked: &Asked) -> Result<Option<Survey>, Problem> {
        let places = asked.places.iter();
        let places: Vec<String> = places.map(|path| path.display().to_string()).collect();
        let mut arguments = vec!["node", "survey"];
        for place in &places {
            arguments.extend(["--measure", place]);
        }
        if asked.local_changes {
            arguments.push("--local-changes");
        }
        if let Some(cache) = &asked.cache {
            arguments.extend(["--cache", cache]);
        }
        let output = match self.run(&arguments, SURVEY_DEADLINE).await {
            Ok(output) => output,
            Err(error) => return Err(self.silence(&error).await),
        };
        if output.ended == REFUSED_WORDS {
            return Ok(None);
        }
        let found = answer::read(&output.stdout);
        found.map(Some).map_err(|said| self.no_status(&output, &said))
    }

    /// Takes the node out of service for `run` without waiting until it is empty; why not, when it did not work.
    pub async fn cordon(&self, run: &str) -> Option<String> {
        self.complaint(&["node", "cordon", "--run", run]).await
    }

    /// Puts the node back into service when [`Self::cordon`] took it out and no run has begun to change it.
    pub async fn uncordon(&self) {
        if let Some(complaint) = self.complaint(&["node", "cordon", "--undo"]).await {
            tracing::warn!(node = self.node.id, complaint, "not put back into service");
        }
    }

    /// What the node's platform says against its health; `None` when it is healthy, and when it cannot be asked.
    pub async fn sickness(&self) -> Option<String> {
        let arguments = ["node", "health"];
        let output = self.run(&arguments, STATUS_DEADLINE).await.ok()?;
        let exit = match output.ended {
            Ended::Exit(code) => Exit::from_code(code),
            Ended::Signal(_) => None,
        };
        (exit == Some(Exit::Preflight)).then(|| answer::last_words(&output.stderr).to_owned())
    }

    /// Runs something short whose only answer is that it worked; else its last words. A `kato` that does not know the command yet
    /// has nothing to complain about: its own run does without.
    async fn complaint(&self, arguments: &[&str]) -> Option<String> {
        match self.run(arguments, START_DEADLINE).await {
            Ok(output) if output.ended.is_success() || output.ended == REFUSED_WORDS => None,
            Ok(output) => Some(format!(
                "{}: {}",
                output.ended,
                answer::last_words(&output.stderr)
            )),
            Err(error) => Some(error.to_string()),
        }
    }

    /// Ends the connection.
    pub async fn close(&self) {
        self.host.close().await;
    }

    /// What is run, for people.
    fn shown(&self) -> String {
        let mut words = self.prefix.clone();
        words.push(self.program.display().to_string());
        words.join(" ")
    }

    fn command(&self, arguments: &[&str], deadline: Option<Duration>) -> RemoteCommand {
        let mut argv = self.prefix.clone();
        let mut env = self.env.clone();
        if !self.prefix.is_empty() {
            // Behind `sudo` a variable is its argument: sudo starts with a clean environment. `env` in between would need
            // a sudo rule for every program.
            argv.extend(env.drain(..).map(|(name, value)| format!("{name}={value}")));
        }
        argv.push(self.program.display().to_string());
        argv.extend(["--config".to_owned(), self.node.config.display().to_string()]);
        if let Some(token) = self.fence {
            argv.extend(["--fence".to_owned(), token.to_string()]);
        }
        argv.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        RemoteCommand {
            argv,
            env,
            deadline,
            input: self.password.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cluster::inventory::{SshSettings, Transport},
        ssh::fake::{FakeNode, Fault},
    };

    fn node(sudo: bool) -> RemoteNode {
        let node = InventoryNode {
            id: "w1".into(),
            address: "10.0.0.3".into(),
            roles: vec![],
            transport: Transport::Ssh,
            kato: None,
            config: "/etc/kato/kato.toml".into(),
        };
        let fake = FakeNode::new("w1", &["dea"], "1.0.0");
        RemoteNode::new(node, fake.host(), "/home/stackato/bin/kato".into(), sudo)
    }

    #[test]
    fn r13_variables_are_arguments_and_never_inherited() {
        let skip = vec![("SKIP".to_owned(), "1".to_owned())];
        let by_sudo = node(true).with_env(skip.clone()).command(&["x"], None);
        assert_eq!(
            by_sudo.argv.join(" "),
            "sudo -n SKIP=1 /home/stackato/bin/kato --config /etc/kato/kato.toml x"
        );
        assert_eq!(by_sudo.env, []);
        let direct = node(false).with_env(skip.clone()).command(&["x"], None);
        assert_eq!(
            direct.argv.join(" "),
            "/home/stackato/bin/kato --config /etc/kato/kato.toml x"
        );
        assert_eq!(direct.env, skip);
    }

    #[tokio::test]
    async fn a_kato_that_hangs_and_a_node_that_is_not_reached_are_two_problems_with_two_remedies() {
        let asked = |faults: &[Fault]| {
            let fake = FakeNode::new("w1", &["dea"], "1.0.0").with_faults(faults);
            let host = fake.host();
            async move { RemoteNode { host, ..node(true) }.status().await }
        };
        let remedy = |problem: &Problem| problem.remedy(&node(true).node, &SshSettings::default());
        // Its kato gives no answer, and the next command does.
        let hangs = asked(&[Fault::Hang]).await.unwrap_err();
        assert_eq!(
            hangs.to_string(),
            "the node is reached, and `sudo -n /home/stackato/bin/kato --config /etc/kato/kato.toml node upgrade --status --json` \
             there gave no answer within 30s"
        );
        assert!(
            remedy(&hangs).starts_with("run `ssh stackato@10.0.0.3 sudo -n /home/stackato/bin/kato "),
            "{}",
            remedy(&hangs)
        );
        // Nothing gives an answer: the line is cut, and nobody has noticed yet.
        for faults in [
            &[Fault::Hang, Fault::Hang][..],
            &[Fault::Hang, Fault::Unreachable],
            &[Fault::Unreachable],
        ] {
            let cut = asked(faults).await.unwrap_err();
            assert!(matches!(cut, Problem::Unreachable { .. }), "{faults:?}: {cut}");
            assert_eq!(
                remedy(&cut),
                "make `ssh stackato@10.0.0.3` work without a question"
            );
        }
        assert!(asked(&[]).await.is_ok());
    }

    #[test]
    fn a_missing_program_and_a_failing_one_are_two_problems() {
        let output = |code| Output {
            ended: Ended::Exit(code),
            stdout: String::new(),
            stderr: "sudo: a password is required".into(),
        };
        assert!(matches!(
            node(true).no_status(&output(127), ""),
            Problem::NoKato { .. }
        ));
        assert!(matches!(
            node(true).no_status(&output(1), ""),
            Problem::NoStatus { .. }
        ));
        let by_sudo = Output {
            stderr: "sudo: /home/stackato/bin/kato: command not found\n".into(),
            ..output(1)
        };
        assert!(matches!(
            node(true).no_status(&by_sudo, ""),
            Problem::NoKato { .. }
        ));
        assert!(matches!(
            node(true).no_status(&output(0), "hello"),
            Problem::NotUnderstood { .. }
        ));
    }
}
