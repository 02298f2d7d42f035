//! `kato-proxy serve`.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, thread::available_parallelism};

use kato_shared::{clock::Clock, shutdown, telemetry};
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::{
    runtime::{Builder, Runtime},
    signal::unix::{Signal, SignalKind, signal},
    task::spawn_blocking,
};
use tokio_util::sync::CancellationToken;

use super::{SettingsArgs, explain, fail, print};
use crate::{App, StartError, exit, reload::Reloader, settings::Settings, tls::authority::AuthorityError};

/// Serves until stopped; returns the exit code.
pub(super) fn serve(args: SettingsArgs) -> u8 {
    let settings = match args.settle() {
        Ok(settings) => settings,
        Err(message) => return fail(exit::USAGE, &message),
    };
    if let Err(error) = telemetry::start(settings.log.format, &settings.log.filter) {
        return fail(exit::USAGE, &explain(&error));
    }
    raise_descriptor_limit();
    // Somebody installed one already: then TLS works with that one.
    let _already_installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => {
            return fail(
                exit::REFUSED,
                &format!("the worker threads cannot be started: {error}"),
            );
        }
    };
    let code = runtime.block_on(run(args, settings));
    // What still runs on blocking threads after the grace period is not waited for.
    runtime.shutdown_background();
    code
}

/// With one CPU, one thread that never hands work to another one: a request then costs no switch between threads.
fn runtime() -> io::Result<Runtime> {
    let mut builder = match available_parallelism() {
        Ok(one) if one.get() == 1 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    builder.enable_all().build()
}

/// The usual soft limit of 1024 descriptors is for programs that use `select`; the hard limit is what the host allows.
fn raise_descriptor_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

/// Tells why there is nothing to serve.
pub(super) fn refuse(error: &StartError) -> u8 {
    let code = match error {
        StartError::Settings(_)
        | StartError::Filter(_)
        | StartError::Certificate(_)
        | StartError::Authority(AuthorityError::Uncovered { .. }) => exit::USAGE,
        StartError::Listen { .. }
        | StartError::Socket { .. }
        | StartError::Token(_)
        | StartError::Store(_)
        | StartError::Origin(_)
        | StartError::Authority(_)
        | StartError::Snapshot(_)
        | StartError::Tls(_) => exit::REFUSED,
    };
    fail(code, &explain(error))
}

async fn run(args: SettingsArgs, settings: Settings) -> u8 {
    let app = match App::build(settings, Clock::system()).await {
        Ok(app) => app,
        Err(error) => {
            return refuse(&error);
        }
    };
    // Whoever reads the addresses may stop us at once, and finds us ready for it.
    let installed =
        shutdown::Signals::install().and_then(|signals| Ok((signals, signal(SignalKind::hangup())?)));
    let (signals, hangup) = match installed {
        Ok(installed) => installed,
        Err(error) => return fail(exit::REFUSED, &format!("signals cannot be handled: {error}")),
    };
    let reloader = app.reloader();
    print(&listening("data", app.data_address));
    if let Some(address) = app.tls_address {
        print(&listening("tls", address));
    }
    print(&listening("admin", app.admin_address));
    notify_ready();
    let stop = CancellationToken::new();
    tokio::select! {
        () = app.serve(stop.clone()) => exit::DONE,
        () = signals.cancel(stop) => {
            fail(exit::TRY_AGAIN, "stopped at once by a second signal; unfinished downloads were dropped")
        }
        never = reload_on(hangup, args, reloader) => match never {},
    }
}

/// Reads the settings again on every SIGHUP, and puts them in force or says why not.
async fn reload_on(mut hangup: Signal, args: SettingsArgs, reloader: Reloader) -> Infallible {
    let args = Arc::new(args);
    while hangup.recv().await.is_some() {
        let reading = Arc::clone(&args);
        let outcome = match spawn_blocking(move || reading.settle()).await {
            Ok(Ok(settings)) => reloader.apply(settings).await.map_err(|error| explain(&error)),
            Ok(Err(message)) => Err(message),
            Err(panicked) => Err(panicked.to_string()),
        };
        match outcome {
            Ok(kept) => {
                for key in kept {
                    tracing::warn!(
                        key,
                        "a changed setting takes effect after a restart, and not before"
                    );
                }
                tracing::info!("the settings were read again and are in force");
            }
            Err(reason) => tracing::error!(reason, "the settings stay as they were"),
        }
    }
    // No more signals come: the runtime is ending, and this with it.
    std::future::pending().await
}

/// The line that tells a supervisor where a listener is.
fn listening(listener: &str, address: SocketAddr) -> String {
    format!("{{\"listener\":\"{listener}\",\"address\":\"{address}\"}}\n")
}

/// Tells systemd that the service is up (`Type=notify`); without `NOTIFY_SOCKET` there is nobody to tell.
#[expect(
    clippy::disallowed_methods,
    reason = "the socket is a fact of the process's start, not a setting"
)]
fn notify_ready() {
    let Ok(path) = std::env::var("NOTIFY_SOCKET") else {
        return;
    };
    let told =
        std::os::unix::net::UnixDatagram::unbound().and_then(|socket| socket.send_to(b"READY=1", &path));
    if let Err(error) = told {
        tracing::warn!(path, %error, "systemd could not be told that the service is up");
    }
}
