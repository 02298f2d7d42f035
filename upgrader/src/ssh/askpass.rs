//! Our own askpass: `ssh` asks `kato` for passwords, and `kato` asks the person at the terminal once.
//!
//! ```text
//!  person ◄─ terminal ─ kato (Asker: remembers)          ssh (master connection)
//!                         │ socket in a 0700 folder          │ starts SSH_ASKPASS, our own program
//!                         └───────────◄── prompt ── kato as askpass ── answer ─► ssh's pipe
//! ```
//!
//! The password goes over a socket that only this user can open, and from there into the pipe that ssh reads. It is in no
//! argument, no environment and no file; the environment has the socket's path. (An inherited descriptor would do as well, but
//! ssh closes all of them when it starts.)
//!
//! Deliberately absent: any reading of what a prompt means. The same prompt gets the same answer; with `one_password` the name
//! of the node in it does not count.
//!
//! Invariants: what was remembered is tried once a connection, so that a wrong password is asked for again instead of locking the
//! account; questions come one after the other; without a terminal nobody is asked.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream as Client,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
    sync::Mutex as Turn,
    task::JoinSet,
    time::timeout,
};

use super::secret::Secret;

/// The variable with the path of the socket. Where it is set, this program is askpass and nothing else.
const SOCKET: &str = "KATO_ASKPASS_SOCKET";

/// How large a prompt may be, in bytes.
const MAX_PROMPT: u64 = 4096;

/// How long our own askpass may take to say what it was asked.
const PROMPT_DEADLINE: Duration = Duration::from_secs(10);

/// Shows a prompt and reads an answer without showing it; `None` when there is no answer.
pub type Read = fn(&str) -> Option<Secret>;

/// Asks the person at the terminal, and remembers.
#[derive(Debug)]
pub struct Asker {
    read: Read,
    one_for_all: bool,
    /// One question at a time.
    turn: Turn<()>,
    known: Mutex<BTreeMap<String, Secret>>,
}

impl Asker {
    /// Asks by `read`; with `one_for_all`, one answer is taken for all nodes.
    pub fn new(read: Read, one_for_all: bool) -> Arc<Self> {
        Arc::new(Self {
            read,
            one_for_all,
            turn: Turn::new(()),
            known: Mutex::default(),
        })
    }

    /// What `prompt` of the node with these `names` is remembered by.
    fn key(&self, prompt: &str, names: &[&str]) -> String {
        let mut key = prompt.to_owned();
        if self.one_for_all {
            for name in names.iter().filter(|name| !name.is_empty()) {
                key = without(&key, name);
            }
        }
        key
    }

    /// The answer to `prompt`: the remembered one, else the person's. With `again`, the remembered one was wrong.
    pub async fn answer(self: &Arc<Self>, prompt: &str, names: &[&str], again: bool) -> Option<Secret> {
        let _one_at_a_time = self.turn.lock().await;
        let key = self.key(prompt, names);
        if again {
            self.known().remove(&key);
        } else if let Some(known) = self.known().get(&key) {
            return Some(known.clone());
        }
        let (read, shown) = (self.read, prompt.to_owned());
        let answer = tokio::task::spawn_blocking(move || read(&shown))
            .await
            .ok()
            .flatten()?;
        self.known().insert(key, answer.clone());
        Some(answer)
    }

    fn known(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Secret>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `text` with `*` for `name` where it stands as a word: a node may be called `a`, which is in `password` as well.
fn without(text: &str, name: &str) -> String {
    let mut key = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(name) {
        let (before, after) = (&rest[..at], &rest[at + name.len()..]);
        let is_part = before.ends_with(char::is_alphanumeric) || after.starts_with(char::is_alphanumeric);
        key.push_str(before);
        key.push_str(if is_part { name } else { "*" });
        rest = after;
    }
    key + rest
}

/// Answers the askpass of one `ssh` for as long as it is there.
#[derive(Debug)]
pub(super) struct Desk {
    socket: PathBuf,
    /// Ends with the desk.
    _serving: JoinSet<()>,
}

impl Desk {
    /// Opens it in `folder`, which only this user can enter, for the node with these `names`.
    pub(super) fn open(folder: &Path, asker: &Arc<Asker>, names: Vec<String>) -> std::io::Result<Self> {
        let socket = folder.join("a");
        match std::fs::remove_file(&socket) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _gone => {}
        }
        let listener = UnixListener::bind(&socket)?;
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, Arc::clone(asker), names));
        Ok(Self {
            socket,
            _serving: serving,
        })
    }

    /// What ssh needs in its environment to ask here.
    pub(super) fn env(&self) -> std::io::Result<[(&'static str, std::ffi::OsString); 3]> {
        Ok([
            ("SSH_ASKPASS", std::env::current_exe()?.into()),
            // Also where there is a terminal and no graphical session.
            ("SSH_ASKPASS_REQUIRE", "force".into()),
            (SOCKET, self.socket.clone().into()),
        ])
    }
}

async fn serve(listener: UnixListener, asker: Arc<Asker>, names: Vec<String>) {
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut earlier = std::collections::BTreeSet::new();
    // Only accepting can fail, and then nobody is answered: ssh says that it got no password.
    while let Ok((mut client, _)) = listener.accept().await {
        let Some(prompt) = prompt(&mut client).await else {
            continue;
        };
        let again = !earlier.insert(prompt.clone());
        if let Some(answer) = asker.answer(&prompt, &names, again).await {
            let sent = client.write_all(&answer.line()).await;
            tracing::trace!(ok = sent.is_ok(), "a question of ssh was answered");
        }
    }
}

async fn prompt(client: &mut UnixStream) -> Option<String> {
    let mut text = Vec::new();
    let mut client = client.take(MAX_PROMPT);
    let read = client.read_to_end(&mut text);
    timeout(PROMPT_DEADLINE, read).await.ok()?.ok()?;
    Some(String::from_utf8_lossy(&text).into_owned())
}

/// Where ssh has started this program to ask for a password: asks the `kato` that started ssh, and prints the answer for ssh.
/// `None` when this is an ordinary start.
pub fn main() -> Option<ExitCode> {
    let socket = std::env::var_os(SOCKET)?;
    let prompt = std::env::args().nth(1).unwrap_or_default();
    let answered = ask(Path::new(&socket), &prompt);
    Some(if answered.is_ok_and(|answered| answered) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Whether there was an answer.
fn ask(socket: &Path, prompt: &str) -> std::io::Result<bool> {
    let mut desk = Client::connect(socket)?;
    desk.write_all(prompt.as_bytes())?;
    desk.shutdown(std::net::Shutdown::Write)?;
    let mut answer = zeroize::Zeroizing::new(Vec::new());
    desk.read_to_end(&mut answer)?;
    std::io::stdout().lock().write_all(&answer)?;
    Ok(!answer.is_empty())
}

#[cfg(test)]
mod tests;
