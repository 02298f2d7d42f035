//! `kato-proxy ca`: the local authority that opens CONNECT, in its folder; no running proxy is asked.

use clap::{Args, Subcommand};
use jiff::Timestamp;
use kato_shared::clock::Clock;
use serde::Serialize;

use super::{SettingsArgs, explain, fail, print, tell};
use crate::{
    exit,
    settings::Settings,
    tls::authority::{AuthorityError, Hosts, Record},
};

#[derive(Debug, Args)]
pub(super) struct CaArgs {
    #[command(subcommand)]
    act: Act,
}

#[derive(Debug, Subcommand)]
enum Act {
    /// Make the local authority for the hosts of upstreams with intercept = true, unless there is one for them
    Init(ActArgs),
    /// Show its certificate and what it may sign for
    Show(ActArgs),
    /// Replace it by a new one for the hosts that the settings name now; the old one vouches for it
    Rotate(ActArgs),
}

#[derive(Debug, Args)]
struct ActArgs {
    #[command(flatten)]
    settings: SettingsArgs,
    /// Print a JSON document
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct View<'a> {
    schema: u32,
    name: &'a str,
    fingerprint: String,
    hosts: &'a Hosts,
    from: Timestamp,
    until: Timestamp,
    certificate: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    predecessor: Option<PredecessorView>,
}

#[derive(Debug, Serialize)]
struct PredecessorView {
    fingerprint: String,
    until: Timestamp,
}

/// `ca`.
pub(super) fn ca(args: &CaArgs) -> u8 {
    let (Act::Init(with) | Act::Show(with) | Act::Rotate(with)) = &args.act;
    let settings = match with.settings.settle_without_authority() {
        Ok(settings) => settings,
        Err(message) => return fail(exit::USAGE, &message),
    };
    let record = match &args.act {
        Act::Init(_) => init(&settings),
        Act::Show(_) => read(&settings),
        Act::Rotate(_) => rotate(&settings),
    };
    match record {
        Ok(record) => {
            print(&if with.json { json(&record) } else { text(&record) });
            exit::DONE
        }
        Err(error) => fail(exit::REFUSED, &explain(&error)),
    }
}

fn read(settings: &Settings) -> Result<Record, AuthorityError> {
    let folder = settings.ca_dir();
    Record::read(&folder)?.ok_or(AuthorityError::Absent { folder })
}

fn init(settings: &Settings) -> Result<Record, AuthorityError> {
    let (folder, hosts, now) = (settings.ca_dir(), hosts(settings)?, Clock::system().now());
    match Record::read(&folder)? {
        Some(record) => record.require(&folder, &hosts, now).map(|()| record),
        None => Record::create(&folder, &hosts, now),
    }
}

fn rotate(settings: &Settings) -> Result<Record, AuthorityError> {
    let record = Record::rotate(&settings.ca_dir(), &hosts(settings)?, Clock::system().now())?;
    tell(
        "a running proxy takes the new authority when it reads its settings again (systemctl reload kato-proxy, or SIGHUP);\n\
         clients that trust the old one keep working for its hosts until it ends, and should get the new one before that",
    );
    Ok(record)
}

fn hosts(settings: &Settings) -> Result<Hosts, AuthorityError> {
    let hosts = settings.intercepted_hosts();
    if hosts.is_empty() {
        return Err(AuthorityError::NoHosts);
    }
    Ok(hosts)
}

/// PEM files may carry text before the certificate, which every reader passes over.
fn text(record: &Record) -> String {
    let mut text = format!(
        "# {}\n# SHA-256 fingerprint {}\n# valid until {}\n# may sign for {}, and for nothing else\n",
        record.name,
        record.fingerprint(),
        record.until,
        record.hosts
    );
    if let Some(predecessor) = &record.predecessor {
        let (until, fingerprint) = (predecessor.until, predecessor.fingerprint());
        text.extend([
            "# vouched for until ",
            &until.to_string(),
            " by ",
            &fingerprint,
            "\n",
        ]);
    }
    text + &record.certificate
}

fn json(record: &Record) -> String {
    let view = View {
        schema: 1,
        name: &record.name,
        fingerprint: record.fingerprint(),
        hosts: &record.hosts,
        from: record.from,
        until: record.until,
        certificate: &record.certificate,
        predecessor: record.predecessor.as_ref().map(|predecessor| PredecessorView {
            fingerprint: predecessor.fingerprint(),
            until: predecessor.until,
        }),
    };
    serde_json::to_string(&view).unwrap_or_default() + "\n"
}
