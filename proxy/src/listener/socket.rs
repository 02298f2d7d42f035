//! What the kernel is asked to do for a client's connection.

use std::time::Duration;

use rustix::net::sockopt::set_tcp_user_timeout;
use tokio::net::TcpStream;

/// Prepares an accepted connection.
///
/// The progress timeout is the kernel's (`TCP_USER_TIMEOUT`): a client that takes nothing of what it is sent, because it stopped
/// reading or is gone, loses its connection after that time, whatever writes to it: copies, `sendfile`, TLS, a tunnel. It
/// sees each acknowledged byte, which this process cannot, and costs nothing per write. A client that is slow, but takes some, stays.
pub(super) fn prepare(stream: &TcpStream, progress_timeout: Duration) {
    // A head and a body written apart must not wait for each other's acknowledgement.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY refused");
    }
    let millis = u32::try_from(progress_timeout.as_millis()).unwrap_or(u32::MAX);
    if let Err(error) = set_tcp_user_timeout(stream, millis) {
        tracing::debug!(%error, "TCP_USER_TIMEOUT refused");
    }
}
