//! `kato-proxy prefetch`: from arguments to what is fetched, with a running cache or with our own pipeline in this process.

mod args;

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    pin::pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use kato_shared::{clock::Clock, counted, settings::byte_size::human, telemetry};
use tokio::{
    runtime::Builder,
    task::spawn_blocking,
    time::{Instant, interval_at},
};
use tokio_util::sync::CancellationToken;

use super::{explain, fail, print, serve::refuse, tell};
use crate::{
    App, StartError,
    beside::Ask,
    exit,
    prefetch::{Cache, Gathered, Indexes, Inputs, Plan, Progress, Summary, fetch, gather, measure},
    settings::{Settings, Upstream},
    snapshot::Library,
    store::{OpenError, Store},
};

pub(super) use args::PrefetchArgs;

/// How often progress is shown.
const SHOWN_EVERY: Duration = Duration::from_secs(2);
/// The most failures, and missing files, that are printed; all are in the document of `--json`.
const MOST_SHOWN: usize = 50;

/// Fetches; returns the exit code.
pub(super) fn prefetch(args: &PrefetchArgs) -> u8 {
    let settings = match args.settings.settle() {
        Ok(settings) => settings,
        Err(message) => return fail(exit::USAGE, &message),
    };
    let inputs = match args.inputs() {
        Ok(inputs) => inputs,
        Err(message) => return fail(exit::USAGE, &message),
    };
    // Each request of ours would be a line otherwise.
    let filter = args.settings.log.as_deref().unwrap_or("warn");
    if let Err(error) = telemetry::start(settings.log.format, filter) {
        return fail(exit::USAGE, &explain(&error));
    }
    let _already_installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = match Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(exit::REFUSED, &format!("no event loop: {error}")),
    };
    let (indexes, store) = (Indexes::of(&settings), settings.cache.dir.clone());
    let code = runtime.block_on(async {
        match args.through {
            Some(address) => run(args, &Cache::new(address), &inputs, &indexes).await,
            None => alone(args, settings, &inputs, &indexes).await,
        }
    });
    runtime.shutdown_background();
    if code == exit::DONE && !args.plan && Store::is_in(&store) {
        keep_keyrings(&store, &inputs);
    }
    code
}

/// Keeps the keyrings of archives beside the store, for those who ask later when their keys expire.
fn keep_keyrings(store: &Path, inputs: &Inputs) {
    let library = Library::new(store);
    for key in inputs.apt.iter().flat_map(|input| &input.keys) {
        if let Err(error) = library.keep_keyring(key) {
            tell(&format!(
                "`bundle plan` will not know when its keys expire: {}",
                explain(&error)
            ));
        }
    }
}

/// With our own pipeline over the store, which nobody else has open.
async fn alone(args: &PrefetchArgs, settings: Settings, inputs: &Inputs, indexes: &Indexes) -> u8 {
    let app = match App::build(for_us_alone(settings), Clock::system()).await {
        Ok(app) => app,
        Err(StartError::Store(OpenError::Locked { path })) => {
            return match server_of(path).await {
                Ok(address) => run(args, &Cache::new(address), inputs, indexes).await,
                Err(code) => code,
            };
        }
        Err(error) => return refuse(&error),
    };
    let cache = Cache::new(app.data_address);
    let shutdown = CancellationToken::new();
    let work = async {
        let code = run(args, &cache, inputs, indexes).await;
        shutdown.cancel();
        code
    };
    let (code, ()) = tokio::join!(work, app.serve(shutdown.clone()));
    code
}

/// Where the server of the store in `store` listens for clients; it fills the store then.
async fn server_of(store: PathBuf) -> Result<SocketAddr, u8> {
    let ask = move || {
        Ask {
            store: &store,
            hears: &mut |_line| {},
        }
        .address()
    };
    let asked = spawn_blocking(ask).await;
    let asked = asked.map_err(|panicked| fail(exit::BUG, &panicked.to_string()))?;
    let (mut address, is_offline) = asked.map_err(|error| fail(error.code(), &explain(&error)))?;
    if is_offline {
        return Err(fail(
            exit::REFUSED,
            "the server of this store asks no upstream\nhint: prefetch where there is a network, and carry it here with kato-proxy bundle",
        ));
    }
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    tell(&format!(
        "through the server of this store, at {address}, with its settings"
    ));
    Ok(address)
}

/// The same upstreams and store, for clients in this process alone.
fn for_us_alone(mut settings: Settings) -> Settings {
    settings.listen = crate::settings::Listen {
        data: SocketAddr::from(([127, 0, 0, 1], 0)),
        admin: SocketAddr::from(([127, 0, 0, 1], 0)),
        ..crate::settings::Listen::default()
    };
    settings.tls = crate::settings::Tls {
        certificate: None,
        key: None,
        ..settings.tls
    };
    settings.offline = false;
    settings.access = crate::settings::Access::default();
    settings.registry.users_file = None;
    let open = |mut upstream: Upstream| {
        upstream.clients = None;
        upstream
    };
    settings.upstreams = settings.upstreams.into_iter().map(open).collect();
    settings
}

async fn run(args: &PrefetchArgs, cache: &Cache, inputs: &Inputs, indexes: &Indexes) -> u8 {
    let gathered = gather(cache, inputs, indexes).await;
    let plan = match measure(cache, &gathered, args.jobs).await {
        Ok(plan) => plan,
        Err(error) => {
            return fail(
                exit::TRY_AGAIN,
                &format!(
                    "{}\nhint: is `kato-proxy serve` running at {}?",
                    explain(&error),
                    cache.base()
                ),
            );
        }
    };
    gathered.notes.iter().for_each(|note| tell(note));
    tell(&plan.line());
    if args.plan {
        return planned(args, &plan, &gathered);
    }
    let progress = Arc::new(Progress::default());
    let summary = {
        let (bytes, unknown) = plan.size();
        let extent = Extent {
            files: plan.missing.len() + plan.again.len(),
            bytes,
            is_exact: unknown == 0 && plan.again.is_empty(),
        };
        let fetching = fetch(cache, plan, gathered, (args.jobs, Arc::clone(&progress)));
        shown(fetching, &progress, &extent).await
    };
    if args.json {
        match serde_json::to_string_pretty(&summary) {
            Ok(text) => print(&(text + "\n")),
            Err(error) => return fail(exit::BUG, &error.to_string()),
        }
    }
    conclude(&summary)
}

fn planned(args: &PrefetchArgs, plan: &Plan, gathered: &Gathered) -> u8 {
    if args.json {
        let missing = plan.missing.iter().map(|item| {
            serde_json::json!({ "path": item.path, "size": item.size, "digest": item.integrity.map(|digest| digest.to_string()) })
        });
        let again = plan.again.iter().map(|item| &item.path);
        let (bytes, unknown) = plan.size();
        let document = serde_json::json!({
            "schema": 1, "held": plan.held, "held_bytes": plan.held_bytes, "missing_bytes": bytes, "unknown_sizes": unknown,
            "missing": missing.collect::<Vec<_>>(), "asked_again": again.collect::<Vec<_>>(), "failures": gathered.failures,
        });
        print(&format!("{document:#}\n"));
    } else {
        for item in plan.missing.iter().take(MOST_SHOWN) {
            let size = item
                .size
                .map_or_else(String::new, |size| format!("  {}", human(size)));
            print(&format!("missing  {}{size}\n", item.path));
        }
        and_more(plan.missing.len());
    }
    for failure in &gathered.failures {
        tell(&format!("failed  {}: {}", failure.subject, failure.why));
    }
    if gathered.failures.is_empty() {
        exit::DONE
    } else {
        exit::TRY_AGAIN
    }
}

/// How much is to be fetched.
struct Extent {
    files: usize,
    /// As far as indexes say.
    bytes: u64,
    /// Whether they say it of all files.
    is_exact: bool,
}

impl Extent {
    /// How far it is, for people, after `items` files with `bytes` bytes in `seconds`.
    fn line(&self, items: u64, bytes: u64, seconds: u64) -> String {
        let rate = bytes / seconds.max(1);
        let (of, left) = if self.is_exact {
            let left = self.bytes.saturating_sub(bytes).checked_div(rate);
            (
                format!(" of {}", human(self.bytes)),
                left.map(|left| format!(", {left} s left")),
            )
        } else {
            // The files are counted where no index says how large they are.
            let files = (self.files as u64).saturating_sub(items);
            let left = files.saturating_mul(seconds).checked_div(items);
            let at_least = self.bytes.max(bytes);
            (
                format!(" of at least {}", human(at_least)),
                left.map(|left| format!(", about {left} s left")),
            )
        };
        format!(
            "{items} of {}, {}{of}, {}/s{}",
            counted(self.files, "file", "files"),
            human(bytes),
            human(rate),
            left.unwrap_or_default()
        )
    }
}

/// The outcome of `fetching`, and meanwhile how far it is.
async fn shown(fetching: impl Future<Output = Summary>, progress: &Progress, extent: &Extent) -> Summary {
    let begun = Instant::now();
    let mut every = interval_at(begun + SHOWN_EVERY, SHOWN_EVERY);
    let mut fetching = pin!(fetching);
    loop {
        tokio::select! {
            summary = &mut fetching => return summary,
            _ = every.tick() => {}
        }
        let (bytes, items) = (
            progress.bytes.load(Ordering::Relaxed),
            progress.items.load(Ordering::Relaxed),
        );
        tell(&extent.line(items, bytes, begun.elapsed().as_secs()));
    }
}

/// Says how many of `count` are not shown.
fn and_more(count: usize) {
    if count > MOST_SHOWN {
        tell(&format!("… and {} more; --json has all", count - MOST_SHOWN));
    }
}

/// Says what came of it.
fn conclude(summary: &Summary) -> u8 {
    for failure in summary.failures.iter().take(MOST_SHOWN) {
        tell(&format!("failed  {}: {}", failure.subject, failure.why));
    }
    and_more(summary.failures.len());
    tell(&format!(
        "fetched {}, {}; {} held, {}; {}; {} absent; {} failed",
        counted(summary.fetched, "file", "files"),
        human(summary.fetched_bytes),
        counted(summary.held, "was", "were"),
        human(summary.held_bytes),
        counted(summary.documents, "document", "documents"),
        summary.absent.len(),
        summary.failures.len()
    ));
    if summary.has_mismatch {
        exit::VERIFICATION_FAILED
    } else if summary.failures.iter().any(|failure| failure.is_temporary) {
        tell("hint: the same command goes on where this one ended");
        exit::TRY_AGAIN
    } else if summary.failures.is_empty() {
        exit::DONE
    } else {
        exit::REFUSED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_is_told_by_bytes_where_all_are_known_and_else_by_files() {
        let mut extent = Extent {
            files: 40,
            bytes: 10 << 20,
            is_exact: true,
        };
        assert_eq!(
            extent.line(1, 2 << 20, 2),
            "1 of 40 files, 2.0 MiB of 10.0 MiB, 1.0 MiB/s, 8 s left"
        );
        assert_eq!(extent.line(0, 0, 2), "0 of 40 files, 0 B of 10.0 MiB, 0 B/s");
        extent.is_exact = false;
        assert_eq!(
            extent.line(10, 2 << 20, 2),
            "10 of 40 files, 2.0 MiB of at least 10.0 MiB, 1.0 MiB/s, about 6 s left"
        );
    }
}
