//! The caching proxy of Kato: one shared cache for a whole cluster, for apt, registries and plain HTTP.
//!
//! The modules here that decide are pure: [`policy`] (RFC 9111), [`conditional`], [`range`], [`key`] and [`cache_status`]
//! take facts and the current time and return values.

pub mod cache_status;
pub mod conditional;
pub mod key;
pub mod policy;
pub mod range;
