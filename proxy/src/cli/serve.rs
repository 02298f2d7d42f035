//! `kato-proxy serve`.

use std::{io, net::SocketAddr, thread::available_parallelism};

use kato_shared::{clock::Clock, shutdown, telemetry};
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;

use super::{explain, fail, print};
use crate::{App, StartError, exit, settings::Settings};

/// Serves until stopped; returns the exit code.
pub(super) fn serve(settings: Settings) -> u8 {
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
    let code = runtime.block_on(run(settings));
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

async fn run(settings: Settings) -> u8 {
    let app = match App::build(settings, Clock::system()).await {
        Ok(app) => app,
        Err(error) => {
            let code = match &error {
                StartError::Settings(_) => exit::USAGE,
                StartError::Listen { .. } | StartError::Store(_) | StartError::Origin(_) => exit::REFUSED,
            };
            return fail(code, &explain(&error));
        }
    };
    // Whoever reads the addresses may stop us at once, and finds us ready for it.
    let signals = match shutdown::Signals::install() {
        Ok(signals) => signals,
        Err(error) => return fail(exit::REFUSED, &format!("signals cannot be handled: {error}")),
    };
    print(&listening("data", app.data_address));
    print(&listening("admin", app.admin_address));
    notify_ready();
    let stop = CancellationToken::new();
    tokio::select! {
        () = app.serve(stop.clone()) => exit::DONE,
        () = signals.cancel(stop) => {
            fail(exit::TRY_AGAIN, "stopped at once by a second signal; unfinished downloads were dropped")
        }
    }
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
