//! One connection to the server under test, plain or TLS. Opening blocks; everything else never does.

use std::{
    io::{self, BufRead, BufReader, ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    os::fd::{AsFd, BorrowedFd},
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use rustix::net::{RecvFlags, recv};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};

/// How long a connection may take to be made, its TLS handshake included.
const CONNECT: Duration = Duration::from_secs(10);
/// What one read takes of an encrypted stream: as much as fits the second-level cache.
const CIPHERTEXT: usize = 256 * 1024;

/// Where connections lead.
#[derive(Debug)]
pub(crate) struct Destination {
    address: SocketAddr,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

impl Destination {
    /// `address`; over TLS when there is an authority (a PEM file) to trust, for the name `name`.
    ///
    /// # Errors
    /// When the file holds no certificate.
    pub(crate) fn new(address: SocketAddr, authority: Option<&Path>, name: &str) -> Result<Self> {
        let tls = match authority {
            None => None,
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for certificate in CertificateDer::pem_file_iter(path)
                    .with_context(|| format!("cannot read `{}`", path.display()))?
                {
                    roots.add(certificate?)?;
                }
                ensure!(!roots.is_empty(), "no certificate in `{}`", path.display());
                let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
                let config = ClientConfig::builder_with_provider(provider)
                    .with_safe_default_protocol_versions()?
                    .with_root_certificates(roots)
                    .with_no_client_auth();
                Some((Arc::new(config), ServerName::try_from(name.to_owned())?))
            }
        };
        Ok(Self { address, tls })
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// When the server does not take it in time, or the handshake fails.
    pub(crate) fn open(&self) -> io::Result<Link> {
        let socket = TcpStream::connect_timeout(&self.address, CONNECT)?;
        socket.set_nodelay(true)?;
        let Some((config, name)) = &self.tls else {
            return Ok(Link::Plain(socket));
        };
        let mut session =
            ClientConnection::new(Arc::clone(config), name.clone()).map_err(io::Error::other)?;
        socket.set_read_timeout(Some(CONNECT))?;
        let mut stream = &socket;
        while session.is_handshaking() {
            session.complete_io(&mut stream)?;
        }
        socket.set_nonblocking(true)?;
        Ok(Link::Tls(Box::new(Tls {
            session,
            socket: BufReader::with_capacity(CIPHERTEXT, socket),
        })))
    }
}

/// An open connection.
#[derive(Debug)]
pub(crate) enum Link {
    /// HTTP over TCP.
    Plain(TcpStream),
    /// HTTP over TLS.
    Tls(Box<Tls>),
}

/// A TLS session and its socket.
#[derive(Debug)]
pub(crate) struct Tls {
    session: ClientConnection,
    socket: BufReader<TcpStream>,
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Plain(socket) => socket.as_fd(),
            Self::Tls(tls) => tls.socket.get_ref().as_fd(),
        }
    }
}

impl Link {
    /// Whether bytes may wait here that no event will announce.
    pub(crate) fn buffers(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// Sends a request; it is small enough for the socket's buffer.
    ///
    /// # Errors
    /// When the connection is broken.
    pub(crate) fn send(&mut self, request: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.write_all(request),
            Self::Tls(tls) => {
                tls.session.writer().write_all(request)?;
                while tls.session.wants_write() {
                    tls.session.write_tls(tls.socket.get_mut())?;
                }
                Ok(())
            }
        }
    }

    /// Reads into `buffer`; 0 is the end of the connection.
    ///
    /// # Errors
    /// [`ErrorKind::WouldBlock`] when nothing is there; else the connection is broken.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => Ok(recv(socket, buffer, RecvFlags::DONTWAIT)?.1),
            Self::Tls(tls) => tls.ready(|mut plaintext| plaintext.read(buffer)),
        }
    }

    /// Drops at most `buffer.len()` bytes; nothing is copied where that can be avoided.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(crate) fn drop_bytes(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => Ok(recv(socket, buffer, RecvFlags::DONTWAIT | RecvFlags::TRUNC)?.1),
            Self::Tls(tls) => tls.ready(|mut plaintext| {
                let count = plaintext.fill_buf()?.len().min(buffer.len());
                plaintext.consume(count);
                Ok(count)
            }),
        }
    }
}

impl Tls {
    /// What `take` does with the plaintext, once there is some.
    fn ready(&mut self, mut take: impl FnMut(rustls::Reader<'_>) -> io::Result<usize>) -> io::Result<usize> {
        loop {
            match take(self.session.reader()) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                taken => return taken,
            }
            if self.session.read_tls(&mut self.socket)? == 0 {
                return Ok(0);
            }
            self.session.process_new_packets().map_err(io::Error::other)?;
        }
    }
}
