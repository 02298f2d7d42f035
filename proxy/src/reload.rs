//! Replacing the settings while serving.
//!
//! Flow: whoever asks for it (SIGHUP) reads the settings again and hands them to [`Reloader::apply`], which validates them, keeps what
//! only a restart can change, puts the next generation in force, and tells the listeners their new bounds. No connection is dropped:
//! a request that is being answered, and a download that it began, end under the settings that they began with.
//!
//! Invariant: all or nothing. Settings that are refused change nothing.

use std::sync::Arc;

use tokio::{
    sync::{Mutex, watch},
    task::{JoinError, spawn_blocking},
};

use crate::{
    admin::access::{TokenError, read_token},
    app::warn_of_what_is_beside_users,
    listener::Bounds,
    origin::OriginError,
    pipeline::Current,
    settings::{InvalidSettings, Settings},
    tls::{
        Certificates, PairError,
        authority::{Authority, AuthorityError},
    },
};

/// Why settings were not put in force.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// They contradict themselves.
    #[error(transparent)]
    Settings(#[from] InvalidSettings),
    /// Their origins cannot be set up.
    #[error(transparent)]
    Origin(#[from] OriginError),
    /// Their certificate cannot be used.
    #[error("the certificate cannot be replaced")]
    Certificate(#[from] PairError),
    /// CONNECT is to be opened for hosts that the local authority may not sign for, or there is none.
    #[error("the hosts that CONNECT is opened for cannot be replaced")]
    Authority(#[from] AuthorityError),
    /// Their token for the admin API cannot be used.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The process is going down.
    #[error("a file was not read")]
    Unread(#[from] JoinError),
}

/// The way to replace the settings of a running proxy; clones reach the same one.
#[derive(Debug, Clone)]
pub struct Reloader {
    current: Current,
    bounds: Arc<watch::Sender<Bounds>>,
    /// Where the proxy has TLS.
    certificates: Option<Certificates>,
    /// One at a time.
    turn: Arc<Mutex<()>>,
}

impl Reloader {
    /// For what `current` serves, whose listeners watch `bounds`.
    pub(crate) fn new(
        current: Current,
        bounds: watch::Sender<Bounds>,
        certificates: Option<Certificates>,
    ) -> Self {
        Self {
            current,
            bounds: Arc::new(bounds),
            certificates,
            turn: Arc::default(),
        }
    }

    /// Puts `settings` in force and returns the keys that keep their running values until a restart.
    ///
    /// # Errors
    /// [`ReloadError`]; the settings before stay in force.
    pub async fn apply(&self, mut settings: Settings) -> Result<Vec<&'static str>, ReloadError> {
        settings.validate()?;
        let _turn = self.turn.lock().await;
        let kept = settings.keep_fixed(self.current.load().settings());
        let bounds = Bounds::of(&settings.limits);
        if let Some(path) = settings.admin.token_file.clone() {
            drop(spawn_blocking(move || read_token(&path)).await??);
        }
        // Everything that can be refused comes before everything that changes.
        let pair = match settings.tls.pair().filter(|_| self.certificates.is_some()) {
            Some(files) => Some(spawn_blocking(move || files.load()).await??),
            None => None,
        };
        let (folder, hosts) = (settings.ca_dir(), settings.intercepted_hosts());
        let clock = self.current.load().clock();
        let authority = spawn_blocking(move || Authority::ready(&folder, &hosts, &clock)).await??;
        warn_of_what_is_beside_users(&settings);
        self.current.replace(settings, authority)?;
        if let Some((certificates, pair)) = self.certificates.as_ref().zip(pair) {
            certificates.replace(pair);
        }
        self.bounds.send_replace(bounds);
        Ok(kept)
    }
}
