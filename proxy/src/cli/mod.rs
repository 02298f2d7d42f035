//! The command line: arguments into settings, one verb into one run.
//!
//! Precedence: flags > environment (`KATO_PROXY_…`) > the settings file > built-in. Data goes to stdout, everything
//! else to stderr.

mod admin;
mod bundle;
mod ca;
mod client;
mod client_config;
mod doctor;
mod prefetch;
mod request;
mod serve;
mod store;

use std::{
    io::Write,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use clap::{Args, Parser, Subcommand};
use kato_shared::{clock::Clock, telemetry::LogFormat};
use tokio::runtime::Builder;

use admin::{AdminArgs, ListArgs, SelectArgs, ShowArgs};

use crate::{
    StartError, exit,
    explain::explain,
    inputs::Inputs,
    metrics::Metrics,
    settings::{DEFAULT_PATH, ProxyEnvironment, Settings, Upstream},
    tls::authority::Record,
};

/// Caching proxy for clusters: each file crosses the WAN once.
#[derive(Debug, Parser)]
#[command(name = "kato-proxy", version, about, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Serve clients until stopped.
    Serve(SettingsArgs),
    /// Check the settings and print the ones in force.
    CheckConfig(SettingsArgs),
    /// What a client has to be told to use this server: apt, docker, pip, …
    ClientConfig(client_config::ClientConfigArgs),
    /// On a client's machine: can it reach the cache, and what would lead a client past it?
    Doctor(doctor::DoctorArgs),
    /// Fill the store before anybody asks: URLs, lock files, images, releases, apt packages, requests of offline mirrors
    Prefetch(Box<prefetch::PrefetchArgs>),
    /// Write down what clients of this offline mirror asked for in vain, for `prefetch` where there is a network.
    Request(request::RequestArgs),
    /// Statistics of the running proxy.
    Stats(AdminArgs),
    /// List what the running proxy has stored.
    Ls(ListArgs),
    /// Show what is stored of one URL, why it is fresh or stale, and what a request would get.
    Show(ShowArgs),
    /// Forget stored responses: of a URL, a prefix, an upstream, a digest.
    Purge(SelectArgs),
    /// Keep stored responses, and validate them before they are used again.
    Invalidate(SelectArgs),
    /// Keep a URL, a prefix or content from eviction; or list what is kept
    Pin(store::PinArgs),
    /// Let go of what is pinned
    Unpin(store::UnpinArgs),
    /// The local authority that opens CONNECT: make, show, replace it
    Ca(ca::CaArgs),
    /// Carry what is stored to a site without a network, and take it in there
    Bundle(bundle::BundleArgs),
    /// Remove what nobody can ask for, and compact the index
    Gc(AdminArgs),
    /// Read all stored content and remove what is damaged.
    Verify(AdminArgs),
}

/// Where settings come from.
#[derive(Debug, Args)]
struct SettingsArgs {
    /// The settings file [default: /etc/kato/proxy.toml if it exists]
    #[arg(long, value_name = "FILE", env = "KATO_PROXY_CONFIG")]
    config: Option<PathBuf>,
    /// The address that clients use
    #[arg(long, value_name = "ADDR", env = "KATO_PROXY_LISTEN")]
    listen: Option<SocketAddr>,
    /// The address that clients use with TLS
    #[arg(long, value_name = "ADDR", env = "KATO_PROXY_LISTEN_TLS")]
    listen_tls: Option<SocketAddr>,
    /// The PEM file of the certificate for it
    #[arg(long, value_name = "FILE", env = "KATO_PROXY_TLS_CERTIFICATE")]
    tls_certificate: Option<PathBuf>,
    /// The PEM file of the certificate's private key
    #[arg(long, value_name = "FILE", env = "KATO_PROXY_TLS_KEY")]
    tls_key: Option<PathBuf>,
    /// The address of health, metrics and the API
    #[arg(long, value_name = "ADDR", env = "KATO_PROXY_ADMIN")]
    admin: Option<SocketAddr>,
    /// The store's folder
    #[arg(long, value_name = "DIR", env = "KATO_PROXY_CACHE_DIR")]
    cache_dir: Option<PathBuf>,
    /// An origin that may be asked; may be repeated
    #[arg(
        long,
        value_name = "NAME=URL[,URL…]",
        env = "KATO_PROXY_UPSTREAM",
        value_delimiter = ' '
    )]
    upstream: Vec<Upstream>,
    /// How log lines look: human or json
    #[arg(long, value_name = "FORMAT", env = "KATO_PROXY_LOG_FORMAT")]
    log_format: Option<LogFormat>,
    /// What is logged, e.g. warn,access=info
    #[arg(long, value_name = "FILTER", env = "KATO_PROXY_LOG")]
    log: Option<String>,
    /// Never contact an upstream
    #[arg(long, env = "KATO_PROXY_OFFLINE")]
    offline: bool,
    /// With --offline: serve this snapshot in place of the active one
    #[arg(long, value_name = "N", env = "KATO_PROXY_SNAPSHOT")]
    snapshot: Option<u64>,
}

/// Runs the command line and returns the exit code.
pub fn run() -> u8 {
    match Cli::parse().verb {
        Verb::Serve(args) => serve::serve(args),
        Verb::CheckConfig(args) => check_config(&args),
        Verb::ClientConfig(args) => client_config::client_config(&args),
        Verb::Doctor(args) => doctor::doctor(&args),
        Verb::Prefetch(args) => prefetch::prefetch(&args),
        Verb::Request(args) => request::request(&args),
        Verb::Stats(args) => client::stats(&args),
        Verb::Ls(args) => client::ls(&args),
        Verb::Show(args) => client::show(&args),
        Verb::Purge(args) => client::select("/-/api/purge", &args),
        Verb::Invalidate(args) => client::select("/-/api/invalidate", &args),
        Verb::Pin(args) => store::pin(&args),
        Verb::Unpin(args) => store::unpin(&args),
        Verb::Ca(args) => ca::ca(&args),
        Verb::Bundle(args) => bundle::bundle(&args),
        Verb::Gc(args) => store::gc(&args),
        Verb::Verify(args) => client::verify(&args),
    }
}

fn check_config(args: &SettingsArgs) -> u8 {
    match args.settle() {
        Ok(settings) => {
            // The way to the origins has a task, which never runs here.
            let runtime = match Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return fail(exit::REFUSED, &format!("no event loop: {error}")),
            };
            let _inside = runtime.enter();
            match readable(&settings) {
                Ok(()) => {
                    for beside in settings.beside_users() {
                        tell(&format!("warning: {beside}\nhint: {}", beside.hint()));
                    }
                    print_settings(&settings)
                }
                Err(error) => serve::refuse(&error),
            }
        }
        Err(message) => fail(exit::USAGE, &message),
    }
}

/// What `serve` would refuse of the files that `settings` name.
fn readable(settings: &Settings) -> Result<(), StartError> {
    // Certificates are judged by the provider of TLS.
    let _already_installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
    Inputs::read(settings, Clock::system(), Metrics::new(settings)).map(drop)
}

impl SettingsArgs {
    /// The settings that file, environment and flags make together now, or why there are none.
    fn settle(&self) -> Result<Settings, String> {
        let settings = self.settle_without_authority()?;
        let hosts = settings.intercepted_hosts();
        let folder = settings.ca_dir();
        // One that is not there yet is made when the proxy starts.
        let record = Record::read(&folder).map_err(|error| explain(&error))?;
        if let Some(record) = record.filter(|_| !hosts.is_empty()) {
            let now = Clock::system().now();
            record
                .require(&folder, &hosts, now)
                .map_err(|error| explain(&error))?;
        }
        Ok(settings)
    }

    /// The same, whether the local authority may sign for their hosts or not.
    fn settle_without_authority(&self) -> Result<Settings, String> {
        let default = Path::new(DEFAULT_PATH);
        let file = self
            .config
            .as_deref()
            .or_else(|| default.exists().then_some(default));
        let mut settings = match file {
            Some(path) => Settings::load(path).map_err(|error| explain(&error))?,
            None => Settings::default(),
        };
        if let Some(address) = self.listen {
            settings.listen.data = address;
        }
        settings.listen.tls = self.listen_tls.or(settings.listen.tls);
        for (flag, key) in [
            (&self.tls_certificate, &mut settings.tls.certificate),
            (&self.tls_key, &mut settings.tls.key),
        ] {
            if flag.is_some() {
                key.clone_from(flag);
            }
        }
        if let Some(address) = self.admin {
            settings.listen.admin = address;
        }
        if let Some(dir) = &self.cache_dir {
            settings.cache.dir.clone_from(dir);
        }
        if let Some(format) = self.log_format {
            settings.log.format = format;
        }
        if let Some(filter) = &self.log {
            settings.log.filter.clone_from(filter);
        }
        settings.offline |= self.offline;
        settings.mirror.snapshot = self.snapshot.or(settings.mirror.snapshot);
        settings.origins.environment = proxy_environment()?;
        for upstream in &self.upstream {
            settings.set_upstream(upstream.clone());
        }
        settings.validate().map_err(|error| match file {
            Some(path) => format!("{}: {error}", path.display()),
            None => error.to_string(),
        })?;
        Ok(settings)
    }
}

/// `HTTP_PROXY` and its like.
#[expect(
    clippy::disallowed_methods,
    reason = "the command line reads the environment for the settings"
)]
fn proxy_environment() -> Result<ProxyEnvironment, String> {
    ProxyEnvironment::read(|name| std::env::var(name).ok())
}

fn print_settings(settings: &Settings) -> u8 {
    match toml::to_string(settings) {
        Ok(text) => {
            print(&text);
            exit::DONE
        }
        Err(error) => fail(
            exit::BUG,
            &format!("the settings cannot be written as TOML: {error}"),
        ),
    }
}

/// Writes data to stdout; a reader that has closed it wants no more.
fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _reader_left = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Tells the user why there is nothing more to do.
fn fail(code: u8, message: &str) -> u8 {
    tell(message);
    code
}

/// Tells the user something that is no data.
#[expect(clippy::print_stderr, reason = "the owner of stderr beside the log")]
fn tell(message: &str) {
    eprintln!("kato-proxy: {message}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent_and_flags_win_over_the_file() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("proxy.toml");
        let text = "[listen]\ndata = \"127.0.0.1:1\"\n[[upstream]]\nname = \"a\"\nkind = \"release\"\nurls = [\"http://a/\"]\n";
        kato_shared::durable::write(&file, text.as_bytes(), 0o600).unwrap();
        let file = file.display().to_string();
        let line = [
            "kato-proxy",
            "serve",
            "--config",
            &file,
            "--listen",
            "127.0.0.1:2",
            "--upstream",
            "a=http://b/",
        ];
        let Verb::Serve(args) = Cli::parse_from(line).verb else {
            panic!("another verb")
        };
        let settings = args.settle().unwrap();
        assert_eq!(settings.listen.data.port(), 2);
        assert_eq!(settings.upstreams[0].urls[0].url().as_str(), "http://b/");
        assert_eq!(settings.upstreams[0].kind, crate::settings::Kind::Release);
    }
}
