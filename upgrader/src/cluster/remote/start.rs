//! The start of a run on a node: its words, and what the first look at it says.

use kato_shared::release::Version;
use serde::Deserialize;
use url::Url;

use super::{RemoteNode, START_DEADLINE, answer};
use crate::{
    exit::Exit,
    ssh::{Ended, HostError},
};

/// What the first look at a starting run says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// It runs; its events have greater numbers.
    Started {
        /// The number of the last event before it.
        after_seq: u64,
    },
    /// Another run is at work.
    Held,
    /// It did not begin.
    Refused {
        /// How the call ended.
        ended: Ended,
        /// Its last words.
        stderr: String,
    },
}

/// A run to start.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "a bool here is a flag of the command line"
)]
pub struct StartRequest {
    /// The id of the run.
    pub run: String,
    /// Where it leads.
    pub version: Version,
    /// Whether an installed release is installed once more.
    pub force: bool,
    /// Whether a node that is not healthy is taken as it is.
    pub tolerant: bool,
    /// Whether all outstanding patches are installed first.
    pub apply_patches: bool,
    /// Whether everything is only put on the node, verified, and nothing else is changed.
    pub download_only: bool,
    /// The cache to download through.
    pub cache_url: Option<Url>,
}

#[derive(Deserialize)]
struct Started {
    after_seq: u64,
}

impl RemoteNode {
    /// Starts a detached run.
    ///
    /// # Errors
    /// [`HostError`]: whether it was started must then be asked.
    pub async fn start(&self, request: &StartRequest) -> Result<Start, HostError> {
        let version = request.version.to_string();
        let mut args = vec![
            "node",
            "upgrade",
            "--skip-confirmation",
            "--detach",
            "--run",
            &request.run,
            "--version",
            &version,
        ];
        if request.force {
            args.push("--force");
        }
        if request.tolerant {
            args.push("--tolerant");
        }
        if request.apply_patches {
            args.push("--apply-patches");
        }
        if request.download_only {
            args.push("--download-only");
        }
        if let Some(url) = &request.cache_url {
            args.extend(["--cache-url", url.as_str()]);
        }
        let output = self.host.run(&self.command(&args, Some(START_DEADLINE))).await?;
        Ok(match (output.ended, answer::read::<Started>(&output.stdout)) {
            (Ended::Exit(0), Ok(started)) => Start::Started {
                after_seq: started.after_seq,
            },
            (Ended::Exit(code), _) if Exit::from_code(code) == Some(Exit::LockHeld) => Start::Held,
            (ended, _) => Start::Refused {
                ended,
                stderr: output.stderr,
            },
        })
    }
}
