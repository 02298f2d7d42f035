//! Turns SIGTERM and SIGINT into one cancellation; a second signal is left to the caller as "now".

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Waits for the first SIGTERM or SIGINT, cancels `token`, then waits for the second and returns.
///
/// Run it beside the work: while the work ends by itself this future is dropped; when it returns, the operator has asked
/// twice and the program should end at once.
///
/// # Errors
/// When the process cannot install its signal handlers.
///
/// # Cancel safety
/// Dropping it restores nothing: the handlers stay installed and the signals are ignored from then on.
pub async fn on_signals(token: CancellationToken) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    for round in 0..2 {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        if round == 0 {
            tracing::info!("stopping; send the signal again to stop at once");
            token.cancel();
        }
    }
    Ok(())
}
