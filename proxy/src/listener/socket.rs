//! What the kernel is asked to do for a client's connection.

use std::{net::IpAddr, time::Duration};

use rustix::{
    io,
    net::sockopt::{
        set_socket_keepalive, set_tcp_keepcnt, set_tcp_keepidle, set_tcp_keepintvl, set_tcp_user_timeout,
    },
};
use tokio::net::{TcpListener, TcpStream};

use super::Door;
use crate::pacing;

/// After how much silence the kernel asks whether the other end is there, and how often it asks in vain. A client that has closed its
/// socket is found out when its kernel has forgotten that, usually after a minute (`tcp_fin_timeout`).
const PROBE: Duration = Duration::from_secs(15);
const PROBES: u32 = 4;

/// Has the kernel ask on all connections of `door` whether their other ends are there; what is said of a listener holds for what it
/// accepts.
pub(super) fn probe(door: &Door) {
    let (Door::Clear(listener) | Door::Tls(listener, _)) = door else {
        return;
    };
    let set = |listener: &TcpListener| -> io::Result<()> {
        set_tcp_keepidle(listener, PROBE)?;
        set_tcp_keepintvl(listener, PROBE)?;
        set_tcp_keepcnt(listener, PROBES)?;
        set_socket_keepalive(listener, true)
    };
    if let Err(error) = set(listener) {
        tracing::debug!(%error, "SO_KEEPALIVE refused");
    }
}

/// Prepares an accepted connection.
///
/// The progress timeout is the kernel's (`TCP_USER_TIMEOUT`): a client that takes nothing of what it is sent, because it stopped
/// reading or is gone, loses its connection after that time, whatever writes to it: copies, `sendfile`, TLS, a tunnel. It
/// sees each acknowledged byte, which this process cannot, and costs nothing per write. A client that is slow, but takes some, stays.
pub(super) fn prepare(stream: &TcpStream, peer: IpAddr, progress_timeout: Duration) {
    // A head and a body written apart must not wait for each other's acknowledgement.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY refused");
    }
    let millis = u32::try_from(progress_timeout.as_millis()).unwrap_or(u32::MAX);
    if let Err(error) = set_tcp_user_timeout(stream, millis) {
        tracing::debug!(%error, "TCP_USER_TIMEOUT refused");
    }
    pacing::spare(stream, peer);
}
