//! What makes a process fit to be PID 1.
//!
//! Whatever loses its parent becomes a child of its PID namespace's first process. Unless that one waits for it, it stays as a zombie: it looks
//! alive to whoever asks by its number, and the kernel cannot end the namespace that it belongs to.

use std::process::Child;

use anyhow::{Context, Result};
use rustix::{
    io::Errno,
    process::{Pid, WaitOptions, wait},
};

/// Waits for every child there is and will be, until `main` has ended.
///
/// The caller must not wait for children anywhere else.
///
/// # Errors
/// When there is nothing to wait for, which cannot be while `main` runs.
pub(crate) fn until_end_of(main: &Child) -> Result<()> {
    let main = i32::try_from(main.id()).ok().and_then(Pid::from_raw);
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((ended, _))) if Some(ended) == main => return Ok(()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error).context("cannot wait for children"),
        }
    }
}
