//! A document among what a login says: the start files of a node's shell may greet whoever comes, also a program.

use serde::de::DeserializeOwned;

/// The last line of `stdout` that is such a document. `kato` prints each document as one line.
///
/// # Errors
/// The first line that was said in its place; empty when nothing was.
pub(in crate::cluster) fn read<T: DeserializeOwned>(stdout: &str) -> Result<T, String> {
    let lines = || stdout.lines().map(str::trim).filter(|line| !line.is_empty());
    let found = lines().rev().find_map(|line| serde_json::from_str(line).ok());
    found.ok_or_else(|| lines().next().unwrap_or_default().to_owned())
}

/// What a command says at its end: its `error:` line, behind which its hint comes; else its last line.
pub(in crate::cluster) fn last_words(stderr: &str) -> &str {
    let mut lines = stderr
        .lines()
        .rev()
        .map(str::trim)
        .filter(|line| !line.is_empty());
    let last = lines.clone().next().unwrap_or_default();
    lines
        .find_map(|line| line.strip_prefix("error: "))
        .unwrap_or(last)
}

/// What a command that says so finds to be done next.
pub(in crate::cluster) fn hint(stderr: &str) -> Option<&str> {
    stderr
        .lines()
        .rev()
        .find_map(|line| line.trim().strip_prefix("hint: "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, serde::Deserialize)]
    struct Answer {
        on: bool,
    }

    #[test]
    fn an_answer_is_found_among_what_a_shell_says() {
        for (said, expected) in [
            ("{\"on\":true}\n", Ok(Answer { on: true })),
            ("hello from bashrc\n\n{\"on\":true}\n", Ok(Answer { on: true })),
            ("{\"on\":false}\n{\"on\":true}\nbye\n", Ok(Answer { on: true })),
            ("hello\nyou\n", Err("hello".to_owned())),
            ("", Err(String::new())),
        ] {
            assert_eq!(read::<Answer>(said), expected, "{said}");
        }
    }

    #[test]
    fn the_last_words_are_the_error_and_not_its_hint() {
        assert_eq!(
            last_words("warning: x\nerror: it broke\n  hint: mend it\n"),
            "it broke"
        );
        assert_eq!(
            last_words("sudo: a password is required\n\n"),
            "sudo: a password is required"
        );
        assert_eq!(last_words(""), "");
    }
}
