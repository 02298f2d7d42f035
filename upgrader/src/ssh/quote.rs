//! Quoting for the one shell that cannot be avoided: sshd hands the command to the account's login shell as one string.
//!
//! Every argument that is not plainly harmless is put between single quotes, inside which a POSIX shell changes nothing.

/// An argument that no quoting can carry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the argument `{shown}` holds a NUL byte, which no command line can carry")]
pub struct NulByte {
    /// The argument with the byte made visible.
    shown: String,
}

/// `argv` as one line that a POSIX shell splits into exactly these arguments.
///
/// # Errors
/// [`NulByte`].
pub fn line<S: AsRef<str>>(argv: &[S]) -> Result<String, NulByte> {
    let words: Result<Vec<String>, NulByte> = argv.iter().map(|argument| word(argument.as_ref())).collect();
    Ok(words?.join(" "))
}

/// One argument, quoted when it must be.
///
/// # Errors
/// [`NulByte`].
pub fn word(argument: &str) -> Result<String, NulByte> {
    if argument.contains('\0') {
        return Err(NulByte {
            shown: argument.replace('\0', "\\0"),
        });
    }
    // `=` is left out although it is harmless in most places: as the first word it would be an assignment.
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:,@+".contains(c);
    if !argument.is_empty() && argument.chars().all(plain) {
        return Ok(argument.to_owned());
    }
    Ok(format!("'{}'", argument.replace('\'', r"'\''")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What `sh` makes of `line`, each argument closed by a NUL byte.
    #[expect(clippy::disallowed_methods, reason = "the shell is what the test is about")]
    fn split_by_sh(line: &str) -> Vec<String> {
        let script = format!("printf '%s\\0' {line}");
        let output = std::process::Command::new("sh")
            .args(["-c", &script])
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        text.split_terminator('\0').map(String::from).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn every_argument_comes_out_of_sh_as_it_went_in(argv in proptest::collection::vec("[^\0]{0,24}", 1..8)) {
            prop_assert_eq!(split_by_sh(&line(&argv).unwrap()), argv);
        }

        #[test]
        fn nothing_that_a_shell_knows_is_special(argv in proptest::collection::vec("[-'\"$`\\\\;&|<>()*?~#! \n\t={}a]{0,16}", 1..6)) {
            prop_assert_eq!(split_by_sh(&line(&argv).unwrap()), argv);
        }
    }

    #[test]
    fn plain_words_stay_readable() {
        let argv = ["kato", "--config", "/etc/kato/kato.toml", "it's", "", "A=b"];
        assert_eq!(
            line(&argv).unwrap(),
            r"kato --config /etc/kato/kato.toml 'it'\''s' '' 'A=b'"
        );
    }

    #[test]
    fn a_nul_byte_is_refused() {
        assert!(line(&["a\0b"]).unwrap_err().to_string().contains("a\\0b"));
    }
}
