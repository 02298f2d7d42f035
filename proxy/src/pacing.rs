//! What never leaves the machine is not paced.
//!
//! BBR, which many hosts have as their default for the sake of slow links, spreads what it sends by a timer of the kernel, about one for every
//! 64 KiB where no `fq` queue does it. Over loopback there is no queue on the way that this could spare, and the timers take more than half
//! of what a processor can send (the measurements are in docs/performance.md). Other connections keep what the host has chosen.

use std::net::IpAddr;

use rustix::net::sockopt::set_tcp_congestion;
use tokio::net::TcpStream;

/// The congestion control that every Linux has and lets everybody use; it does not pace.
const UNPACED: &str = "reno";

/// Has a connection to `peer` send as fast as it is taken, where both ends are on this machine.
pub(crate) fn spare(stream: &TcpStream, peer: IpAddr) {
    let local = || stream.local_addr().ok().map(|address| address.ip());
    if stays_here(peer, local)
        && let Err(error) = set_tcp_congestion(stream, UNPACED)
    {
        tracing::debug!(%error, "TCP_CONGESTION refused");
    }
}

/// Whether the other end of a connection is on this machine: by a loopback address, or by an address that is also this end's.
fn stays_here(peer: IpAddr, local: impl FnOnce() -> Option<IpAddr>) -> bool {
    // A listener for both families sees IPv4 as mapped addresses.
    let peer = peer.to_canonical();
    peer.is_loopback() || local().is_some_and(|local| local.to_canonical() == peer)
}

#[cfg(test)]
mod tests {
    use rustix::net::sockopt::tcp_congestion;
    use tokio::net::TcpListener;

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
            let found = stays_here(peer.parse().unwrap(), || Some(local.parse().unwrap()));
            assert_eq!(found, stays, "{peer} {local}");
        }
        assert!(!stays_here("10.1.2.3".parse().unwrap(), || None));
    }

    #[tokio::test]
    async fn a_connection_of_this_machine_is_not_paced() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, peer) = listener.accept().await.unwrap();
        let before = tcp_congestion(&accepted).unwrap();
        spare(&accepted, "192.0.2.1".parse().unwrap());
        assert_eq!(
            tcp_congestion(&accepted).unwrap(),
            before,
            "a client from elsewhere"
        );
        spare(&accepted, peer.ip());
        assert_eq!(tcp_congestion(&accepted).unwrap(), UNPACED);
    }
}
