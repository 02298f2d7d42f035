//! What settings name outside of themselves, read and judged: files with tokens, certificates and credentials, and the log's filter.
//!
//! `serve` begins with it and `check-config` consists of it, so that what the one refuses the other does, too.
//!
//! Deliberately absent: the store, the addresses and the local authority that is made when there is none. They belong to the process that serves,
//! which may well run while its next settings are checked.

use kato_shared::{clock::Clock, telemetry};

use crate::{
    StartError, admin::access::read_token, metrics::Metrics, origin::Origin, settings::Settings, tls::Pair,
};

/// What was read.
#[derive(Debug)]
pub(crate) struct Inputs {
    /// The way to the origins, with the authorities and credentials that the settings name.
    pub(crate) origin: Origin,
    /// The certificate for clients, where one is named.
    pub(crate) pair: Option<Pair>,
}

impl Inputs {
    /// Reads everything. Blocks.
    ///
    /// # Errors
    /// [`StartError`]; nothing was changed then.
    pub(crate) fn read(settings: &Settings, clock: Clock, metrics: Metrics) -> Result<Self, StartError> {
        settings.validate()?;
        telemetry::check(&settings.log.filter)?;
        if let Some(path) = &settings.admin.token_file {
            drop(read_token(path)?);
        }
        Ok(Self {
            origin: Origin::new(settings, clock, metrics)?,
            pair: settings.tls.pair().map(crate::tls::PairFiles::load).transpose()?,
        })
    }
}
