//! That whoever began a rehearsal is there: it has the other end of the pipe that is our stdin, and nobody else has. The system closes it with its process,
//! whatever ended that.

use std::{io, os::fd::AsFd as _};

use tokio::net::unix::pipe::Receiver;

use super::{RehearsalError, io_error};

/// The end of the pipe that is ours.
pub(super) struct Lifeline(Receiver);

impl Lifeline {
    /// Takes stdin for it.
    ///
    /// # Errors
    /// [`RehearsalError::Io`] where it is no pipe: then nobody would end this.
    pub(super) fn of_stdin() -> Result<Self, RehearsalError> {
        let end = io::stdin().as_fd().try_clone_to_owned();
        let receiver = end.and_then(Receiver::from_owned_fd);
        receiver
            .map(Self)
            .map_err(io_error("watching the export that began this through stdin"))
    }

    /// Returns when the other end is closed.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(super) async fn cut(&self) {
        let mut byte = [0_u8; 1];
        loop {
            if self.0.readable().await.is_err() {
                return;
            }
            match self.0.try_read(&mut byte) {
                // Whatever is said does not matter.
                Ok(1..) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(0) | Err(_) => return,
            }
        }
    }
}
