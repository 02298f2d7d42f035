//! Sets up and fills the cache on Core.

pub mod profile;
