//! What the kernel is asked to do for a client's connection.

use std::{net::IpAddr, time::Duration};

use rustix::{
    io,
    net::sockopt::{
        set_socket_keepalive, set_tcp_congestion, set_tcp_keepcnt, set_tcp_keepidle, set_tcp_keepintvl,
        set_tcp_user_timeout,
    },
};
use tokio::net::{TcpListener, TcpStream};

use super::Door;

/// After how much silence the kernel asks whether the other end is there, and how often it asks in vain. A client that has closed its
/// socket is found out when its kernel has forgotten that, usually after a minute (`tcp_fin_timeout`).
const PROBE: Duration = Duration::from_secs(15);
const PROBES: u32 = 4;

/// The congestion control that every Linux has and lets everybody use; it does not pace.
const UNPACED: &str = "reno";

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
///
/// What never leaves the machine is not paced. BBR, which many hosts have as their default for slow links, paces by a timer of the
/// kernel for every 64 KiB: over loopback there is no queue that this could spare, and it takes more than half of the processor's time.
pub(super) fn prepare(stream: &TcpStream, peer: IpAddr, progress_timeout: Duration) {
    // A head and a body written apart must not wait for each other's acknowledgement.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY refused");
    }
    let millis = u32::try_from(progress_timeout.as_millis()).unwrap_or(u32::MAX);
    if let Err(error) = set_tcp_user_timeout(stream, millis) {
        tracing::debug!(%error, "TCP_USER_TIMEOUT refused");
    }
    let local = stream.local_addr().ok().map(|address| address.ip());
    if stays_here(peer, local)
        && let Err(error) = set_tcp_congestion(stream, UNPACED)
    {
        tracing::debug!(%error, "TCP_CONGESTION refused");
    }
}

/// Whether the other end of a connection is on this machine: by a loopback address, or by an address of its own that is ours as well.
fn stays_here(peer: IpAddr, local: Option<IpAddr>) -> bool {
    // A listener for both families sees IPv4 as mapped addresses.
    let peer = peer.to_canonical();
    peer.is_loopback() || local.is_some_and(|local| local.to_canonical() == peer)
}

#[cfg(test)]
mod tests {
    use rustix::net::sockopt::tcp_congestion;

    use super::*;

    #[test]
    fn what_stays_on_the_machine_is_known_by_its_addresses() {
        for (peer, local, stays) in [
            ("127.0.0.1", "127.0.0.1", true),
            ("127.8.9.1", "127.0.0.1", true),
            ("::1", "::1", true),
            ("::ffff:127.0.0.1", "::ffff:127.0.0.1", true),
            ("10.1.2.3", "10.1.2.3", true),
            ("::ffff:10.1.2.3", "10.1.2.3", true),
            ("fd00::7", "fd00::7", true),
            ("10.1.2.4", "10.1.2.3", false),
            ("fd00::8", "fd00::7", false),
            ("192.0.2.1", "127.0.0.1", false),
        ] {
            let local = Some(local.parse().unwrap());
            assert_eq!(
                stays_here(peer.parse().unwrap(), local),
                stays,
                "{peer} {local:?}"
            );
        }
        assert!(!stays_here("10.1.2.3".parse().unwrap(), None));
    }

    #[tokio::test]
    async fn a_connection_of_this_machine_is_not_paced() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, peer) = listener.accept().await.unwrap();
        let before = tcp_congestion(&accepted).unwrap();
        prepare(&accepted, "192.0.2.1".parse().unwrap(), Duration::from_secs(1));
        assert_eq!(
            tcp_congestion(&accepted).unwrap(),
            before,
            "a client from elsewhere"
        );
        prepare(&accepted, peer.ip(), Duration::from_secs(1));
        assert_eq!(tcp_congestion(&accepted).unwrap(), UNPACED);
    }
}
