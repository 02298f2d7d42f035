//! A bad network between two programs: a TCP relay whose connections break, reset and dribble by a seed.
//!
//! The same seed gives the same faults, so that a failing test names all it needs to happen again. After
//! [`BAD_CONNECTIONS`] connections the network is good, so that every test ends.

use std::{io, net::SocketAddr};

use anyhow::{Context, Result};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::{JoinSet, yield_now},
};

/// How many connections may go wrong.
pub const BAD_CONNECTIONS: u64 = 5;

/// A running relay; it stops when it is dropped.
#[derive(Debug)]
pub struct Toxics {
    address: SocketAddr,
    _relaying: JoinSet<()>,
}

/// What happens to the bytes that flow back to the side that connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Toxic {
    /// Nothing.
    Clean,
    /// The connection ends in good order after this many bytes.
    Cut(usize),
    /// The connection is reset after this many bytes.
    Reset(usize),
    /// Everything arrives in pieces of this many bytes.
    Dribble(usize),
}

impl Toxic {
    /// What `seed` has in store for the connection with this number, counted from 0.
    pub fn of(seed: u64, connection: u64) -> Self {
        if connection >= BAD_CONNECTIONS {
            return Self::Clean;
        }
        let random = scramble(seed ^ scramble(connection));
        // From inside the header section to past the end of a small body.
        let position = usize::try_from(scramble(random) % 3_000_000).unwrap_or(0);
        match random % 4 {
            0 => Self::Clean,
            1 => Self::Cut(position),
            2 => Self::Reset(position),
            _ => Self::Dribble(position % 1400 + 1),
        }
    }
}

/// The finaliser of the generator `SplitMix64`: every bit of the input moves every bit of the output.
fn scramble(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

impl Toxics {
    /// Relays connections from a free port of 127.0.0.1 to `target`.
    ///
    /// # Errors
    /// When there is no port.
    pub async fn start(target: SocketAddr, seed: u64) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .context("no port for the relay")?;
        let address = listener.local_addr()?;
        let mut relaying = JoinSet::new();
        relaying.spawn(async move {
            let mut connections = JoinSet::new();
            let mut count = 0;
            while let Ok((near, _)) = listener.accept().await {
                let toxic = Toxic::of(seed, count);
                count += 1;
                // A relay that breaks is what this module is for.
                connections.spawn(async move { drop(relay(near, target, toxic).await) });
            }
        });
        Ok(Self {
            address,
            _relaying: relaying,
        })
    }

    /// Where to connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

async fn relay(near: TcpStream, target: SocketAddr, toxic: Toxic) -> io::Result<()> {
    let far = TcpStream::connect(target).await?;
    near.set_nodelay(true)?;
    if matches!(toxic, Toxic::Reset(_)) {
        near.set_zero_linger()?;
    }
    let (mut near_read, near_write) = near.into_split();
    let (far_read, mut far_write) = far.into_split();
    let there = copy(&mut near_read, &mut far_write);
    tokio::select! {
        // The asking side has gone; there is nobody to answer.
        _ = there => Ok(()),
        back = give_back(far_read, near_write, toxic) => back,
    }
}

async fn give_back(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, toxic: Toxic) -> io::Result<()> {
    let (limit, piece) = match toxic {
        Toxic::Clean => (usize::MAX, usize::MAX),
        Toxic::Cut(limit) | Toxic::Reset(limit) => (limit, usize::MAX),
        Toxic::Dribble(piece) => (usize::MAX, piece),
    };
    let mut buffer = vec![0; 16 * 1024];
    let mut left = limit;
    while left > 0 {
        let count = from.read(&mut buffer).await?.min(left);
        if count == 0 {
            break;
        }
        for part in buffer[..count].chunks(piece.min(count)) {
            to.write_all(part).await?;
            yield_now().await;
        }
        left -= count;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_always_means_the_same_and_the_network_gets_well() {
        let story = |seed| {
            (0..BAD_CONNECTIONS)
                .map(|n| Toxic::of(seed, n))
                .collect::<Vec<_>>()
        };
        assert_eq!(story(7), story(7));
        assert_ne!(story(7), story(8));
        assert!((0..100).all(|seed| Toxic::of(seed, BAD_CONNECTIONS) == Toxic::Clean));
        let all: Vec<_> = (0..100).flat_map(story).collect();
        assert!(all.iter().any(|toxic| matches!(toxic, Toxic::Cut(_))));
        assert!(all.iter().any(|toxic| matches!(toxic, Toxic::Reset(_))));
        assert!(all.iter().any(|toxic| matches!(toxic, Toxic::Dribble(_))));
    }
}
