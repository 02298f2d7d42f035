//! The terminal: data on stdout, everything else on stderr, a broken pipe is nobody's error.
//!
//! Much of what is printed was said by nodes, by the platform's commands and by hosts. Invariant: none of it moves the cursor, colours the
//! screen, or looks like a line of somebody else; what goes on in a second line is indented in messages ([`shown`]), and is no line of its
//! own in data ([`flat`]). JSON goes out as it is.

use std::{
    borrow::Cow,
    error::Error as _,
    io::{self, BufRead as _, IsTerminal as _, Write as _},
};

use kato_shared::chain::Chain;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use crate::{exit::Failure, ssh::secret::Secret};

/// Prints data to stdout, cleaned. Where it has several lines they are ours: what others said in them was made [`flat`] before.
pub fn data(text: &str) {
    let lines: Vec<Cow<'_, str>> = text.split('\n').map(flat).collect();
    document(&lines.join("\n"));
}

/// Prints a text to stdout as it is, for a file or a program (`| patch -p1`); on a terminal, cleaned.
pub fn text(text: &str) {
    if !io::stdout().is_terminal() {
        return document(text);
    }
    let is_harmless = |c: char| !c.is_control() || c == '\n' || c == '\t';
    let cleaned = |c: char| {
        if is_harmless(c) {
            c
        } else {
            char::REPLACEMENT_CHARACTER
        }
    };
    document(&text.chars().map(cleaned).collect::<String>());
}

/// Prints what is JSON or cleaned already.
pub fn document(line: &str) {
    // A reader that has gone (`| head`) is no reason to stop an upgrade.
    let _reader_gone = writeln!(io::stdout().lock(), "{line}");
}

/// Takes the last `lines` lines of stdout off the screen.
pub fn rewind(lines: usize) {
    // ECMA-48: cursor up, erase to the end of the screen.
    let _reader_gone = write!(io::stdout().lock(), "\x1b[{lines}A\x1b[J");
}

/// `text` in one line without control characters, for a cell or the middle of a line.
pub fn flat(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let plain = |c: char| match c {
        '\n' | '\t' => ' ',
        c if c.is_control() => char::REPLACEMENT_CHARACTER,
        c => c,
    };
    Cow::Owned(text.chars().map(plain).collect())
}

/// `text` without control characters. Its further lines are indented where they are not already.
fn shown(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let lines: Vec<Cow<'_, str>> = text.split('\n').map(flat).collect();
    let is_plain = |line: &Cow<'_, str>| !line.is_empty() && !line.starts_with(' ');
    // All of them, so that what stands below each other stays there.
    let indent = if lines.iter().skip(1).any(is_plain) {
        "\n  "
    } else {
        "\n"
    };
    Cow::Owned(lines.join(indent))
}

/// Prints a value as one line of JSON to stdout. A value that cannot be written as JSON is logged.
pub fn json(value: &impl serde::Serialize) {
    match serde_json::to_string(value) {
        Ok(line) => document(&line),
        Err(error) => tracing::error!(%error, "a document could not be written as JSON"),
    }
}

/// Prints a line for the operator to stderr, cleaned.
pub fn say(line: &str) {
    let _reader_gone = writeln!(io::stderr().lock(), "{}", shown(line));
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
    fn c12_nothing_that_is_printed_moves_the_cursor_or_poses_as_another_line() {
        for (text, expected) in [
            ("plain \u{e9}", "plain \u{e9}"),
            (
                "0.1.0\x1b[31mRED\x07\r\u{9b}2J",
                "0.1.0\u{fffd}[31mRED\u{fffd}\u{fffd}\u{fffd}2J",
            ),
            ("w2: failed\nw1  9.9.9  idle", "w2: failed\n  w1  9.9.9  idle"),
            ("w2: s\n  hint: h", "w2: s\n  hint: h"),
            ("line 1\n  |\n1 | x\n  | ^", "line 1\n    |\n  1 | x\n    | ^"),
        ] {
            assert_eq!(shown(text), expected, "{text:?}");
        }
        assert_eq!(flat("x\nw1\tidle\x1b"), "x w1 idle\u{fffd}");
    }

    #[test]
    fn a_hidden_line_is_edited_and_given_up() {
        let read = |bytes: &[u8]| hidden_line(bytes).map(|secret| secret.reveal().to_owned());
        assert_eq!(read(b"hunter3\x7f2\nrest").as_deref(), Some("hunter2"));
        assert_eq!(read(b"hun\x03ter\n"), None);
        assert_eq!(read(b"hunter"), None);
    }
}
