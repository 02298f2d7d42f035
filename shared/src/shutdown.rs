//! Turns SIGTERM and SIGINT into one cancellation; a second signal is left to the caller as "now".

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The handlers of SIGTERM and SIGINT. From [`Signals::install`] on, neither ends the process by itself: a program that tells
/// others that it is up installs them first.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Installs the handlers.
    ///
    /// # Errors
    /// When the process cannot install them.
    pub fn install() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for the first signal, cancels `token`, then waits for the second and returns.
    ///
    /// Run it beside the work: while the work ends by itself this future is dropped; when it returns, the operator has
    /// asked twice and the program should end at once.
    ///
    /// # Cancel safety
    /// Dropping it restores nothing: the handlers stay installed and the signals are ignored from then on.
    pub async fn cancel(mut self, token: CancellationToken) {
        for round in 0..2 {
            tokio::select! {
                _ = self.terminate.recv() => {}
                _ = self.interrupt.recv() => {}
            }
            if round == 0 {
                tracing::info!("stopping; send the signal again to stop at once");
                token.cancel();
            }
        }
    }
}

/// [`Signals::install`] and [`Signals::cancel`] in one.
///
/// # Errors
/// When the process cannot install its signal handlers.
pub async fn on_signals(token: CancellationToken) -> io::Result<()> {
    Signals::install()?.cancel(token).await;
    Ok(())
}
