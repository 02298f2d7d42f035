//! A parent proxy that alone knows where names lead: servers on loopback under names of their own, without a resolver.
//!
//! Programs send nothing for loopback to a proxy, so a test of what they send needs a name; this machine resolves none.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Result;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// The longest head of a CONNECT that is read, in bytes.
const LONGEST_HEAD: usize = 4096;

type Places = Arc<Mutex<BTreeMap<String, SocketAddr>>>;

/// A running parent; it stops when it is dropped.
#[derive(Debug)]
pub struct Names {
    /// Where it listens, on loopback.
    pub address: SocketAddr,
    places: Places,
    _relaying: JoinSet<()>,
}

impl Names {
    /// One that knows no name yet.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let places = Places::default();
        let mut relaying = JoinSet::new();
        relaying.spawn(serve(listener, Arc::clone(&places)));
        Ok(Self {
            address,
            places,
            _relaying: relaying,
        })
    }

    /// From now on `authority` (`name:port`) is at `place`.
    pub fn lead(&self, authority: &str, place: SocketAddr) {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.insert(authority.to_owned(), place);
    }
}

/// Accepts for ever; the tunnels end with this task.
async fn serve(listener: TcpListener, places: Places) {
    let mut tunnels = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let places = Arc::clone(&places);
        // Who goes away, or wants what is not there, is no event here.
        tunnels.spawn(async move { drop(tunnel(stream, &places).await) });
        while tunnels.try_join_next().is_some() {}
    }
}

async fn tunnel(mut client: TcpStream, places: &Places) -> Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && head.len() < LONGEST_HEAD {
        head.push(client.read_u8().await?);
    }
    let head = String::from_utf8(head)?;
    let asked = head
        .strip_prefix("CONNECT ")
        .and_then(|rest| rest.split(' ').next());
    let place = asked.and_then(|authority| {
        let places = places.lock().unwrap_or_else(PoisonError::into_inner);
        places.get(authority).copied()
    });
    let server = match place {
        Some(place) => TcpStream::connect(place).await.ok(),
        None => None,
    };
    let Some(mut server) = server else {
        client
            .write_all(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
            .await?;
        return Ok(());
    };
    client
        .write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
        .await?;
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}
