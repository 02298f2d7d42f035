//! `kato-proxy doctor`: reads this machine, asks the server, prints what was found.

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::Args;
use kato_shared::clock::Clock;
use tokio::runtime::Builder;
use url::Url;

use super::{fail, print};
use crate::{
    archive_keys::usual_keyrings,
    doctor::{Machine, environment::VARIABLES, examine, files::NpmFile, sources::suites},
    exit,
};

/// Where Debian's and Red Hat's relatives keep the certificates that a machine trusts.
const BUNDLES: [&str; 2] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
];

#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    /// The server, as clients of this machine know it
    #[arg(
        long,
        value_name = "URL",
        env = "KATO_PROXY_SERVER",
        default_value = "http://127.0.0.1:3180/"
    )]
    server: Url,
    /// Print a JSON document
    #[arg(long)]
    json: bool,
}

/// Examines; 0 when nothing has failed, else 1.
pub(super) fn doctor(args: &DoctorArgs) -> u8 {
    if !matches!(args.server.scheme(), "http" | "https") || !args.server.has_host() {
        return fail(
            exit::USAGE,
            "--server is no http or https URL\nhint: write it as http://HOST:3180/",
        );
    }
    let runtime = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(exit::REFUSED, &format!("no event loop: {error}")),
    };
    let (machine, clock) = (this_machine(&args.server), Clock::system());
    let report = runtime.block_on(examine(&args.server, &machine, || clock.now()));
    if args.json {
        match serde_json::to_string_pretty(&report) {
            Ok(document) => print(&format!("{document}\n")),
            Err(error) => return fail(exit::BUG, &format!("the report cannot be written: {error}")),
        }
    } else {
        print(&report.table());
    }
    if report.is_healthy() {
        exit::DONE
    } else {
        exit::UNHEALTHY
    }
}

/// What clients on this machine would read.
#[expect(
    clippy::disallowed_methods,
    reason = "the diagnosis is about the environment of clients"
)]
fn this_machine(server: &Url) -> Machine {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let variables = VARIABLES
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), variable(name)?)));
    let home = variable("HOME").unwrap_or_default();
    let of_all_users = ["NPM_CONFIG_GLOBALCONFIG", "npm_config_globalconfig"]
        .into_iter()
        .find_map(variable)
        .map_or_else(
            || npms_global(&variable("PATH").unwrap_or_default()),
            |named| vec![PathBuf::from(named)],
        );
    let npmrc = npm_files(&of_all_users, &Path::new(&home).join(".npmrc"));
    Machine {
        variables: variables.collect(),
        apt_settings: apt_settings(),
        own_registries: Some(format!("{home}/.config/containers/registries.conf"))
            .filter(|path| Path::new(path).exists()),
        npmrc,
        trusted: BUNDLES.map(|path| read(Path::new(path))).concat(),
        suites: suites(&apt_sources(), server),
        keyrings: usual_keyrings(),
    }
}

/// The files for all users that the npm on `path`, a list of folders, reads: Debian's has its own, others look beside the folder of `node`, by
/// its name or by where that leads. Empty where there is none.
fn npms_global(path: &str) -> Vec<PathBuf> {
    if Path::new("/usr/share/nodejs/npm").exists() {
        return vec![PathBuf::from("/etc/npmrc")];
    }
    let mut programs = path.split(':').map(|folder| Path::new(folder).join("node"));
    let Some(node) = programs.find(|node| node.is_file()) else {
        return Vec::new();
    };
    let led_to = fs::canonicalize(&node).ok();
    let prefixes = [Some(node), led_to].into_iter().flatten();
    prefixes
        .filter_map(|node| Some(node.parent()?.parent()?.join("etc/npmrc")))
        .collect()
}

/// npm's files: `of_all_users` and `own`, which it reads, and those that are right for some npm or other, which it does not read where it
/// is known to read others.
fn npm_files(of_all_users: &[PathBuf], own: &Path) -> Vec<NpmFile> {
    let usual = ["/etc/npmrc", "/usr/etc/npmrc", "/usr/local/etc/npmrc"].map(PathBuf::from);
    let mut paths: Vec<_> = of_all_users.to_vec();
    paths.extend(usual);
    paths.push(own.to_owned());
    paths.dedup();
    let is_read = |path: &PathBuf| of_all_users.is_empty() || of_all_users.contains(path) || path == own;
    let file = |path: PathBuf| NpmFile {
        text: read(&path),
        is_read: is_read(&path),
        path: path.display().to_string(),
    };
    paths.into_iter().map(file).collect()
}

/// All of apt's settings, in any order: only whether something stands in them is looked at.
fn apt_settings() -> String {
    let entries = fs::read_dir("/etc/apt/apt.conf.d")
        .into_iter()
        .flatten()
        .flatten();
    let parts = entries.map(|entry| read(&entry.path()));
    parts.fold(read(Path::new("/etc/apt/apt.conf")), |all, part| {
        all + "\n" + &part
    })
}

/// All of apt's sources, with an empty line between files.
fn apt_sources() -> String {
    let mut text = read(Path::new("/etc/apt/sources.list"));
    let entries = fs::read_dir("/etc/apt/sources.list.d")
        .into_iter()
        .flatten()
        .flatten();
    for path in entries.map(|entry| entry.path()) {
        let extension = path.extension().and_then(|extension| extension.to_str());
        if matches!(extension, Some("list" | "sources")) {
            text.push_str("\n\n");
            text.push_str(&read(&path));
        }
    }
    text
}

/// The file's text; empty where there is none.
fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}
