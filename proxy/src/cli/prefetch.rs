//! `kato-proxy prefetch`: from arguments to what is fetched, with a running cache or with our own pipeline in this process.

mod args;

use std::{
    net::SocketAddr,
    pin::pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use kato_shared::{clock::Clock, settings::byte_size::human, telemetry};
use tokio::{
    runtime::Builder,
    time::{Instant, interval_at},
};
use tokio_util::sync::CancellationToken;

use super::{explain, fail, print, serve::refuse, tell};
use crate::{
    App, exit,
    prefetch::{Cache, Gathered, Indexes, Inputs, Plan, Progress, Summary, fetch, gather, measure},
    settings::{Settings, Upstream},
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
    let indexes = Indexes::of(&settings);
    let code = runtime.block_on(async {
        match args.through {
            Some(address) => run(args, &Cache::new(address), &inputs, &indexes).await,
            None => alone(args, settings, &inputs, &indexes).await,
        }
    });
    runtime.shutdown_background();
    code
}

/// With our own pipeline over the store, which nobody else has open.
async fn alone(args: &PrefetchArgs, settings: Settings, inputs: &Inputs, indexes: &Indexes) -> u8 {
    let app = match App::build(for_us_alone(settings), Clock::system()).await {
        Ok(app) => app,
        Err(error) => {
            tell("hint: where a proxy runs over this store, name its data address with --through");
            return refuse(&error);
        }
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
    tell(&plan.line());
    if args.plan {
        return planned(args, &plan, &gathered);
    }
    let progress = Arc::new(Progress::default());
    let summary = {
        let count = plan.missing.len() + plan.again.len();
        let (known, unknown) = plan.size();
        let total = (unknown == 0 && plan.again.is_empty()).then_some(known);
        let fetching = fetch(cache, plan, gathered, (args.jobs, Arc::clone(&progress)));
        shown(fetching, &progress, (total, count)).await
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

/// The outcome of `fetching`, and meanwhile how far it is.
async fn shown(
    fetching: impl Future<Output = Summary>,
    progress: &Progress,
    (total, count): (Option<u64>, usize),
) -> Summary {
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
        let rate = bytes / begun.elapsed().as_secs().max(1);
        // Where no index says how much it is, only the files are counted.
        let of = total.map_or_else(String::new, |total| format!(" of {}", human(total)));
        let left = total.and_then(|total| total.saturating_sub(bytes).checked_div(rate));
        let left = left.map_or_else(String::new, |seconds| format!(", {seconds} s left"));
        tell(&format!(
            "{items} of {count} files, {}{of}, {}/s{left}",
            human(bytes),
            human(rate)
        ));
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
        "fetched {} files, {}; {} were held, {}; {} documents; {} absent; {} failed",
        summary.fetched,
        human(summary.fetched_bytes),
        summary.held,
        human(summary.held_bytes),
        summary.documents,
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
