//! The caching proxy of Kato: one shared cache for a whole cluster, for apt, registries and plain HTTP.
//!
//! A request goes from [`listener`] through [`pipeline`], the one place where the order of the layers is visible: who may ask,
//! what is asked for ([`route`]), what the [`store`] knows about it ([`policy`] decides), and where a download is needed, one for
//! all who want it ([`fill`], [`origin`]). [`deliver`] sends the body, [`admin`] watches.
//!
//! The modules here that decide are pure: [`policy`] (RFC 9111), [`conditional`], [`range`], [`key`] and [`cache_status`]
//! take facts and the current time and return values.
//!
//! [`App`] is the façade: settings in, bound addresses and a running server out.

pub mod admin;
mod admission;
pub mod app;
pub mod archive_keys;
pub mod beside;
pub mod bundle;
pub mod cache_status;
pub mod cli;
pub mod closure;
pub mod conditional;
pub mod deliver;
pub mod doctor;
pub mod ecosystem;
pub mod exit;
mod explain;
pub mod fill;
pub mod front;
pub mod inputs;
mod interim;
pub mod key;
pub mod listener;
pub mod metrics;
pub mod offline;
pub mod origin;
mod pacing;
mod per_client;
mod permits;
pub mod pipeline;
pub mod policy;
pub mod prefetch;
mod presence;
mod quick_map;
pub mod range;
mod recent;
pub mod registry;
pub mod rehearsal;
pub mod reload;
mod repr_digest;
pub mod respond;
pub mod route;
mod seldom;
pub mod settings;
pub mod setup;
pub mod snapshot;
pub mod store;
pub mod tls;
pub mod view;

pub use app::{App, StartError};
