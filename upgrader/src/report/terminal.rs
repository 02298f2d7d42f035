//! The terminal: data on stdout, everything else on stderr, a broken pipe is nobody's error.

use std::{
    error::Error as _,
    io::{self, BufRead as _, IsTerminal as _, Write as _},
};

use kato_shared::chain::Chain;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use crate::{exit::Failure, ssh::secret::Secret};

/// Prints a line of data to stdout.
pub fn data(line: &str) {
    // A reader that has gone (`| head`) is no reason to stop an upgrade.
    let _reader_gone = writeln!(io::stdout().lock(), "{line}");
}

/// Prints a value as one line of JSON to stdout. A value that cannot be written as JSON is logged.
pub fn json(value: &impl serde::Serialize) {
    match serde_json::to_string(value) {
        Ok(line) => data(&line),
        Err(error) => tracing::error!(%error, "a document could not be written as JSON"),
    }
}

/// Prints a line for the operator to stderr.
pub fn say(line: &str) {
    let _reader_gone = writeln!(io::stderr().lock(), "{line}");
}

/// Prints a failure with all its causes, and what to do next.
pub fn failure(failure: &Failure) {
    say(&format!("error: {}", describe(failure)));
    if let Some(hint) = &failure.hint {
        say(&format!("hint: {hint}"));
    }
}

/// A failure with all its causes in one line.
pub fn describe(failure: &Failure) -> String {
    match failure.source() {
        Some(source) => Chain(source).to_string(),
        None => failure.to_string(),
    }
}

/// An error with all its causes in one line.
pub fn chain(error: &anyhow::Error) -> String {
    let error: &(dyn std::error::Error + 'static) = error.as_ref();
    Chain(error).to_string()
}

/// Whether a person can be asked: both sides of the conversation are a terminal.
pub fn is_interactive() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Whether stderr is a terminal, so that progress may be drawn over itself.
pub fn draws() -> bool {
    io::stderr().is_terminal()
}

/// Shows `prompt` and reads a line that is not shown, from the terminal itself. `None` when there is no terminal, its input ends
/// or the operator presses Ctrl-C.
pub fn secret(prompt: &str) -> Option<Secret> {
    let terminal = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/tty")
        .ok()?;
    let before = tcgetattr(&terminal).ok()?;
    let mut hidden = before.clone();
    // Byte by byte and without signals, so that Ctrl-C does not leave a terminal behind that shows nothing.
    hidden
        .local_modes
        .remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
    tcsetattr(&terminal, OptionalActions::Now, &hidden).ok()?;
    let answer = write!(&terminal, "{prompt}")
        .ok()
        .and_then(|()| hidden_line(&terminal));
    let _reader_gone = writeln!(&terminal);
    // A terminal that took the one setting takes the other.
    let _kept = tcsetattr(&terminal, OptionalActions::Now, &before);
    answer
}

/// One line, with backspace; `None` at Ctrl-C, at Ctrl-D and at the end.
fn hidden_line(mut input: impl io::Read) -> Option<Secret> {
    let mut line = zeroize::Zeroizing::new(Vec::with_capacity(256));
    loop {
        // One at a time: what was typed ahead belongs to the next question.
        let mut byte = [0];
        input.read_exact(&mut byte).ok()?;
        match byte[0] {
            b'\n' | b'\r' => return String::from_utf8(std::mem::take(&mut line)).ok().map(Secret::new),
            0x03 | 0x04 => return None,
            0x08 | 0x7f => {
                line.pop();
            }
            byte => line.push(byte),
        }
    }
}

/// [`confirm`] on a thread of its own, so that a signal is noticed while the question stands.
///
/// # Cancel safety
/// Dropped, the question is not asked again; the thread ends with the program.
pub async fn ask(question: &'static str) -> bool {
    tokio::task::spawn_blocking(move || confirm(question))
        .await
        .unwrap_or(false)
}

/// Asks `question` and waits for a line; only `y` and `yes` are a yes. The end of the input is a no.
pub fn confirm(question: &str) -> bool {
    {
        // Not held while the question stands: whatever ends the program meanwhile says so.
        let mut stderr = io::stderr().lock();
        let _reader_gone = write!(stderr, "{question} [y/N] ").and_then(|()| stderr.flush());
    }
    let mut answer = String::new();
    match io::stdin().lock().read_line(&mut answer) {
        Ok(_) => matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"),
        Err(_closed) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hidden_line_is_edited_and_given_up() {
        let read = |bytes: &[u8]| hidden_line(bytes).map(|secret| secret.reveal().to_owned());
        assert_eq!(read(b"hunter3\x7f2\nrest").as_deref(), Some("hunter2"));
        assert_eq!(read(b"hun\x03ter\n"), None);
        assert_eq!(read(b"hunter"), None);
    }
}
