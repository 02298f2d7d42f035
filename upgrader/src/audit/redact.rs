//! The command line as it may be kept: without passwords, tokens, and the secrets inside URLs.

use std::ffi::OsString;

use kato_shared::redact;
use url::Url;

/// Options whose name holds one of these words have values that are nobody's business.
const SECRET: [&str; 4] = ["password", "passphrase", "secret", "token"];

/// What stands in the place of a secret.
const HIDDEN: &str = "***";

/// The words of a command line, fit to be kept.
pub fn command_line(words: impl IntoIterator<Item = OsString>) -> Vec<String> {
    let mut hides_next = false;
    let mut kept = Vec::new();
    for (at, word) in words.into_iter().enumerate() {
        let word = word.to_string_lossy().into_owned();
        let hidden = std::mem::take(&mut hides_next);
        let is_option = word.starts_with('-') && at > 0;
        kept.push(match word.split_once('=') {
            _ if hidden && !is_option => HIDDEN.into(),
            Some((name, _)) if is_option && is_secret(name) => format!("{name}={HIDDEN}"),
            Some((name, value)) if is_option => format!("{name}={}", shown(value)),
            _ => {
                hides_next = is_option && is_secret(&word);
                shown(&word)
            }
        });
    }
    kept
}

/// A file's name is no secret.
fn is_secret(option: &str) -> bool {
    let name = option.to_ascii_lowercase();
    SECRET.iter().any(|word| name.contains(word)) && !name.ends_with("-file")
}

fn shown(word: &str) -> String {
    match Url::parse(word) {
        Ok(url) if url.has_host() => {
            let shown = redact::url(&url);
            // A URL without secrets stays as it was typed.
            if url.password().is_some() || url.query().is_some() {
                shown
            } else {
                word.to_owned()
            }
        }
        _ => word.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_hidden_and_everything_else_stays_as_it_was_typed() {
        let kept = |line: &str| command_line(line.split(' ').map(Into::into)).join(" ");
        for (typed, expected) in [
            (
                "kato node upgrade --force -v 2.0.0",
                "kato node upgrade --force -v 2.0.0",
            ),
            ("kato x --token abc --json", "kato x --token *** --json"),
            ("kato x --password=abc", "kato x --password=***"),
            ("kato x --token --json", "kato x --token --json"),
            ("kato x --token-file /etc/t", "kato x --token-file /etc/t"),
            (
                "kato x --cache-url http://u:pa55@c.example:3180/",
                "kato x --cache-url http://***@c.example:3180/",
            ),
            (
                "kato x --cache-url=http://c.example/?sig=abc",
                "kato x --cache-url=http://c.example/?sig=***",
            ),
            ("kato x http://c.example", "kato x http://c.example"),
        ] {
            assert_eq!(kept(typed), expected);
        }
    }
}
