//! One connection to one of several addresses, by Happy Eyeballs (RFC 8305): an address that leads nowhere, often the whole of a
//! broken IPv6, costs a quarter of a second and not a minute.

use std::{
    collections::{HashMap, VecDeque},
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    net::TcpStream,
    task::JoinSet,
    time::{Instant, sleep},
};

/// "Connection Attempt Delay … 250 milliseconds" is recommended (RFC 8305 §8).
const STAGGER: Duration = Duration::from_millis(250);
/// How long the address that answered first is asked first: networks change, and so does the load of addresses.
const MEMORY: Duration = Duration::from_secs(600);
/// Hosts whose winner is remembered.
const MAX_WINNERS: usize = 1024;

/// Which address won, by host; clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Winners(Arc<Mutex<HashMap<String, (IpAddr, Instant)>>>);

impl Winners {
    /// `addresses` in the order in which they are tried: the last winner, then the families in turn, beginning with that of
    /// the first (RFC 8305 §4).
    pub(super) fn order(&self, host: &str, addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
        if addresses.len() < 2 {
            return addresses;
        }
        let winner = self
            .lock()
            .get(host)
            .filter(|(_, since)| since.elapsed() < MEMORY)
            .map(|(address, _)| *address);
        interleave(addresses, winner)
    }

    /// Remembers who won.
    pub(super) fn won(&self, host: &str, address: IpAddr) {
        let mut winners = self.lock();
        if winners.len() >= MAX_WINNERS {
            winners.retain(|_, (_, since)| since.elapsed() < MEMORY);
        }
        if winners.len() < MAX_WINNERS {
            winners.insert(host.to_owned(), (address, Instant::now()));
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, (IpAddr, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn interleave(addresses: Vec<SocketAddr>, winner: Option<IpAddr>) -> Vec<SocketAddr> {
    let (mut ordered, rest): (Vec<_>, Vec<_>) = addresses
        .into_iter()
        .partition(|address| Some(address.ip()) == winner);
    let mut rest = VecDeque::from(rest);
    let mut wants_v6 = match ordered.first().or(rest.front()) {
        Some(leader) => leader.is_ipv6() == ordered.is_empty(),
        None => return ordered,
    };
    while let Some(any) = (!rest.is_empty()).then_some(0) {
        let of_family = rest.iter().position(|address| address.is_ipv6() == wants_v6);
        ordered.extend(rest.remove(of_family.unwrap_or(any)));
        wants_v6 = !wants_v6;
    }
    ordered
}

/// Connects to the first of `addresses` that answers: each gets a head start of 250 ms before the next, none once an earlier
/// one has failed.
///
/// # Errors
/// That of the last address that failed.
///
/// # Cancel safety
/// Dropping it ends all attempts.
pub(super) async fn dial(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    if let [only] = addresses {
        return TcpStream::connect(only).await;
    }
    let mut left = addresses.iter().copied();
    let mut attempts = JoinSet::new();
    let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
    loop {
        if let Some(next) = left.next() {
            attempts.spawn(TcpStream::connect(next));
        } else if attempts.is_empty() {
            return Err(failure);
        }
        let has_next = left.len() > 0;
        tokio::select! {
            Some(ended) = attempts.join_next() => match ended {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => failure = error,
                Err(_aborted) => {}
            },
            () = sleep(STAGGER), if has_next => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::{net::TcpSocket, time::timeout};

    use super::*;

    fn v4(last: u8) -> SocketAddr {
        ([192, 0, 2, last], 80).into()
    }

    fn v6(last: u16) -> SocketAddr {
        ([0x2001, 0xdb8, 0, 0, 0, 0, 0, last], 80).into()
    }

    #[test]
    fn families_take_turns_and_the_winner_comes_first() {
        let found = || vec![v6(1), v6(2), v4(1), v4(2), v4(3)];
        assert_eq!(interleave(found(), None), [v6(1), v4(1), v6(2), v4(2), v4(3)]);
        assert_eq!(
            interleave(found(), Some(v4(2).ip())),
            [v4(2), v6(1), v4(1), v6(2), v4(3)]
        );
        let winners = Winners::default();
        winners.won("a", v4(3).ip());
        assert_eq!(winners.order("a", found())[0], v4(3));
        assert_eq!(winners.order("b", found())[0], v6(1));
    }

    /// A listener whose queue is full: the kernel drops what comes, as a black hole does.
    async fn black_hole(address: SocketAddr) -> (tokio::net::TcpListener, Vec<TcpStream>) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(address).unwrap();
        let listener = socket.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        let mut held = Vec::new();
        while let Ok(connected) = timeout(Duration::from_millis(200), TcpStream::connect(address)).await {
            held.push(connected.unwrap());
        }
        (listener, held)
    }

    #[tokio::test]
    async fn an_address_that_leads_nowhere_costs_a_quarter_of_a_second() {
        let (hole, _held) = black_hole(([127, 0, 0, 1], 0).into()).await;
        let port = hole.local_addr().unwrap().port();
        let alive = tokio::net::TcpListener::bind(("127.0.0.2", port)).await.unwrap();
        let addresses = [hole.local_addr().unwrap(), alive.local_addr().unwrap()];
        let began = Instant::now();
        let stream = dial(&addresses).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), addresses[1]);
        let took = began.elapsed();
        assert!(took >= STAGGER && took < STAGGER * 8, "{took:?}");
    }

    #[tokio::test]
    async fn an_address_that_refuses_costs_nothing_and_the_last_error_is_told() {
        let alive = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = alive.local_addr().unwrap().port();
        let refusing = SocketAddr::from(([127, 0, 0, 3], port));
        let began = Instant::now();
        dial(&[refusing, alive.local_addr().unwrap()]).await.unwrap();
        assert!(began.elapsed() < STAGGER);
        let refused = dial(&[refusing, refusing]).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }
}
