//! Logs by `tracing`, on stderr: lines for people or JSON for machines. Data goes to stdout and never through here.

use std::{io::IsTerminal, str::FromStr};

use serde::{Deserialize, Serialize};
use tracing_subscriber::{EnvFilter, fmt};

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One line of text for people.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "human" => Ok(Self::Human),
            "json" => Ok(Self::Json),
            other => Err(format!("`{other}` is not a log format: expected human or json")),
        }
    }
}

/// A log filter that could not be understood.
#[derive(Debug, thiserror::Error)]
#[error("`{filter}` is not a log filter: expected e.g. `info` or `warn,kato_proxy=debug`")]
pub struct FilterError {
    filter: String,
    #[source]
    source: tracing_subscriber::filter::ParseError,
}

/// Whether `filter` can be understood.
///
/// # Errors
/// [`FilterError`] when it is not in the directive syntax of `tracing`.
pub fn check(filter: &str) -> Result<(), FilterError> {
    parse(filter).map(drop)
}

fn parse(filter: &str) -> Result<EnvFilter, FilterError> {
    EnvFilter::try_new(filter).map_err(|source| FilterError {
        filter: filter.to_owned(),
        source,
    })
}

/// Starts logging to stderr. A second call in one process changes nothing (tests start several programs in one).
///
/// # Errors
/// [`FilterError`] when `filter` is not in the directive syntax of `tracing`.
pub fn start(format: LogFormat, filter: &str) -> Result<(), FilterError> {
    let parsed = parse(filter)?;
    // Colours are for a terminal: a file or a journal shall not hold escape sequences.
    let builder = fmt()
        .with_env_filter(parsed)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    let _already_started = match format {
        LogFormat::Human => builder.with_target(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    Ok(())
}
