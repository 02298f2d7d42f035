//! Why an operator does something, in words: the one rule for every `--reason`.

/// The reason without the blanks around it. For [`clap`], which names the option and ends with 2.
///
/// # Errors
/// What is wrong with a text that says nothing.
pub(super) fn words(text: &str) -> Result<String, &'static str> {
    let words = text.trim();
    if words.is_empty() {
        return Err("it is blank: expected a few words for whoever reads the status and the audit log");
    }
    Ok(words.to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::super::Cli;

    #[test]
    fn a_reason_says_something_wherever_one_is_given() {
        for command in [
            "cluster pause",
            "cluster abort",
            "lock break",
            "lock break --cluster",
        ] {
            let run = |reason: &str| {
                let words = command.split(' ').chain(["--reason", reason]);
                Cli::try_parse_from(std::iter::once("kato").chain(words))
            };
            for blank in ["", "  ", "\t\n"] {
                let refused = run(blank).unwrap_err();
                assert_eq!(refused.exit_code(), 2, "{command}");
                let said = refused.to_string();
                assert!(
                    said.contains("--reason <TEXT>") && said.contains("is blank"),
                    "{command}: {said}"
                );
            }
            assert!(
                format!("{:?}", run(" wrong day ").unwrap()).contains("\"wrong day\""),
                "{command}"
            );
        }
    }
}
