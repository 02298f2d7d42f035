//! The gate that a noted command waits at: it is a process with a number before it does anything.
//!
//! A command that is spawned acts at once, and a `kato` that is killed before it has written down the number leaves it to
//! itself. So what is spawned is a shell with a constant script, the command as its arguments: it waits for one line, and
//! becomes the command (`exec`: the same process, the same number, the same start). The line is written when the note is
//! there. A `kato` that ends before closes the pipe, and the command never runs. The line is the name of the note; the command
//! and all that it starts have it in their environment, which tells whose they are when nothing else does any more ([`kin`](super::kin)).
//!
//! The shell, because it is on every node (`fix-kato.sh` needs it too) and all other ways are worse: what runs between fork and
//! exec is `unsafe`; `kato` itself as the gate would be ten times as long on its way, and is what an upgrade replaces; a signal
//! at the parent's death (`setpriv --pdeathsig`) is forgotten by programs with other rights, and reaches none of their children.

use std::{env, io, path::Path};

use rustix::{
    fs::{Access, access},
    io::Errno,
};
use tokio::{io::AsyncWriteExt as _, process::ChildStdin};

/// The shell.
pub(super) const SHELL: &str = "/bin/sh";

/// What stands before the command. Its input is closed when it begins, as of every command.
pub(super) const ARGUMENTS: [&str; 3] = [
    "-c",
    "read -r KATO_COMMAND || exit 125; export KATO_COMMAND; exec \"$@\" </dev/null",
    "kato",
];

/// Opens the gate of a command that waits at it, and gives it its `mark`.
pub(super) async fn open(mut gate: ChildStdin, mark: &str) -> io::Result<()> {
    gate.write_all(format!("{mark}\n").as_bytes()).await
}

/// Looks whether there is such a program, as the system does when it starts one: the shell could not say it as an error.
///
/// # Errors
/// That of `execve(2)`.
pub(super) fn find(program: &str, folder: Option<&Path>) -> io::Result<()> {
    if program.contains('/') {
        let path = Path::new(program);
        return may_run(&folder.map_or_else(|| path.to_owned(), |folder| folder.join(path)));
    }
    let mut worst = Errno::NOENT.into();
    let path = env::var_os("PATH").unwrap_or_else(|| "/bin:/usr/bin".into());
    for folder in env::split_paths(&path).filter(|_| !program.is_empty()) {
        match may_run(&folder.join(program)) {
            Ok(()) => return Ok(()),
            // As execvp(3): somewhere else there may be one that may be run.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => worst = error,
            Err(_) => {}
        }
    }
    Err(worst)
}

fn may_run(path: &Path) -> io::Result<()> {
    if path.metadata()?.is_dir() {
        return Err(Errno::ACCESS.into());
    }
    Ok(access(path, Access::EXEC_OK)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_that_opens_the_gate_is_the_mark() {
        let read = format!("read -r {0} || exit 125; export {0};", super::super::kin::MARK);
        assert!(ARGUMENTS[1].starts_with(&read));
    }

    #[test]
    fn a_program_is_found_as_the_system_finds_it() {
        let kind = |program: &str, folder| find(program, folder).map_err(|error| error.kind());
        let root = Path::new("/");
        assert_eq!(kind("sh", None), Ok(()));
        assert_eq!(kind("/bin/sh", Some(Path::new("/nonexistent"))), Ok(()));
        assert_eq!(kind("bin/sh", Some(root)), Ok(()));
        assert_eq!(
            kind("./bin/sh", Some(Path::new("/proc"))),
            Err(io::ErrorKind::NotFound)
        );
        assert_eq!(kind("no-such-program", Some(root)), Err(io::ErrorKind::NotFound));
        assert_eq!(kind("", None), Err(io::ErrorKind::NotFound));
        assert_eq!(kind("/proc", None), Err(io::ErrorKind::PermissionDenied));
        assert_eq!(kind("/proc/version", None), Err(io::ErrorKind::PermissionDenied));
    }
}
