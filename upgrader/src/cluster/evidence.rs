//! `kato report`: one file with what somebody needs who was not there: plan, versions, events and audit log of every node, and who
//! orchestrates. Made on Core, also in the middle of an upgrade; nothing is changed by it.
//!
//! Deliberately absent: settings files, keys and passwords. URLs that carry secrets lose them ([`redacted`]), also those in events
//! and error texts.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use futures_util::{StreamExt as _, stream};
use kato_shared::{clock::Clock, durable, redact};
use serde_json::json;
use std::time::Duration;
use url::Url;

use super::{connect, facts, overview, remote::RemoteNode};
use crate::{
    exit::{Exit, Failure},
    report::terminal,
    self_update,
    settings::Settings,
};

/// The version of `report.json`.
const SCHEMA: u32 = 1;

/// How many of the newest events of a node are taken along.
const EVENTS: u64 = 5_000;

/// How many of the newest audit records of a node are taken along.
const AUDIT: &str = "2000";

/// How long a node may take to send them.
const DEADLINE: Duration = Duration::from_secs(60);

/// How many nodes are asked at a time.
const AT_ONCE: usize = 8;

/// A file of the report.
type Entry = (String, String);

/// Writes the report to `to`; into the working folder, named after cluster and time, when absent.
///
/// # Errors
/// [`Failure`]: 20 when this is not Core or the file cannot be written. A node that does not answer is a line in the report.
pub async fn run(
    settings: &Settings,
    config: &Path,
    to: Option<PathBuf>,
    is_json: bool,
) -> Result<Exit, Failure> {
    let inventory = super::load(settings, config)?;
    super::refuse_off_core(settings, &inventory)?;
    let nodes = connect::ready(&inventory, settings, config).await?;
    let answers = facts::gather(nodes.values()).await;
    let last_seq = |id: &str| answers.facts.get(id).map(|status| status.last_seq);
    let asked = nodes
        .iter()
        .filter_map(|(id, node)| last_seq(id).map(|seq| of_node(node, seq)));
    let mut entries: Vec<Entry> = stream::iter(asked)
        .buffer_unordered(AT_ONCE)
        .collect::<Vec<_>>()
        .await
        .concat();
    connect::close(&nodes).await;
    entries.sort();
    let now = Clock::system().now();
    let head = json!({
        "schema": SCHEMA, "created": now, "cluster": inventory.name, "kato": self_update::own_version().to_string(),
    });
    entries.insert(0, ("report.json".into(), format!("{head}\n")));
    let answers = overview::own_words(answers, &inventory);
    entries.push((
        "status.json".into(),
        overview::document(settings, &inventory, &answers)?,
    ));
    // The cluster's name is for people: not every one is a file's.
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let cluster: String = inventory.name.chars().map(plain).collect();
    let name = format!("kato-report-{cluster}-{}.tar.zst", now.strftime("%Y%m%dT%H%M%SZ"));
    let to = to.unwrap_or_else(|| PathBuf::from(name));
    let bytes = packed(&entries, now.as_second())
        .context("packing the report failed")
        .map_err(|error| Failure::new(Exit::Bug, error))?;
    durable::hand_out(&to, &bytes, 0o600).map_err(|error| {
        Failure::new(Exit::Preflight, error).hint("name a file in a folder with room with `--output`")
    })?;
    if is_json {
        terminal::json(&json!({"schema": SCHEMA, "file": to, "entries": entries.len()}));
    } else {
        terminal::data(&to.display().to_string());
    }
    Ok(Exit::Done)
}

/// Events and audit log of a node; what it does not give is said in their place.
async fn of_node(node: &RemoteNode, last_seq: u64) -> Vec<Entry> {
    let id = &node.node.id;
    let after = last_seq.saturating_sub(EVENTS).to_string();
    let asked: [(&str, &[&str]); 2] = [
        ("events.jsonl", &["node", "events", "--after", &after]),
        ("audit.jsonl", &["audit", "show", "--last", AUDIT, "--json"]),
    ];
    let mut entries = Vec::new();
    for (name, words) in asked {
        let text = match node.run(words, DEADLINE).await {
            Ok(output) if output.ended.is_success() => output.stdout,
            Ok(output) => format!(
                "{}\n",
                json!({"error": format!("{}: {}", output.ended, output.stderr)})
            ),
            Err(error) => format!("{}\n", json!({"error": error.to_string()})),
        };
        entries.push((format!("nodes/{id}/{name}"), text));
    }
    entries
}

/// The entries, without secrets, as a tar archive through zstd.
fn packed(entries: &[Entry], seconds: i64) -> std::io::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(zstd::Encoder::new(Vec::new(), 3)?);
    for (name, text) in entries {
        let text = redacted(text);
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(u64::try_from(seconds).unwrap_or(0));
        tar.append_data(&mut header, name, text.as_bytes())?;
    }
    tar.into_inner()?.finish()
}

/// The text with every URL in it as [`redact::url`] shows it.
fn redacted(text: &str) -> String {
    const SCHEME_END: &str = "://";
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(SCHEME_END) {
        let scheme = rest[..at]
            .bytes()
            .rev()
            .take_while(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte))
            .count();
        let start = at - scheme;
        let is_end = |c: char| c.is_whitespace() || c.is_control() || "\"'`<>()\\,;|".contains(c);
        let end = rest[at..].find(is_end).map_or(rest.len(), |length| at + length);
        shown.push_str(&rest[..start]);
        match Url::parse(&rest[start..end]) {
            Ok(url) if url.password().is_some() || url.query().is_some() => {
                shown.push_str(&redact::url(&url));
            }
            _plain => shown.push_str(&rest[start..end]),
        }
        rest = &rest[end..];
    }
    shown + rest
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn urls_lose_their_secrets_wherever_they_stand() {
        for (text, expected) in [
            ("plain", "plain"),
            ("://", "://"),
            (
                r#"{"message":"GET http://joe:pa55@c.example/x?sig=abc failed: \"https://d.example/\""}"#,
                r#"{"message":"GET http://***@c.example/x?sig=*** failed: \"https://d.example/\""}"#,
            ),
            ("a (https://d.example/?k=v), b", "a (https://d.example/?k=***), b"),
        ] {
            assert_eq!(redacted(text), expected);
        }
    }

    #[test]
    fn the_file_is_an_archive_that_anybody_can_open() {
        let entries = vec![(
            "nodes/w1/events.jsonl".to_owned(),
            "http://a:b@c.example/\n".to_owned(),
        )];
        let bytes = packed(&entries, 0).unwrap();
        let mut archive = tar::Archive::new(zstd::Decoder::new(&bytes[..]).unwrap());
        let mut entry = archive.entries().unwrap().next().unwrap().unwrap();
        assert_eq!(entry.path().unwrap(), Path::new("nodes/w1/events.jsonl"));
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        assert_eq!(text, "http://***@c.example/\n");
    }
}
