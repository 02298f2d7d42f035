//! Sets up and fills the cache on Core.

pub mod holder;
pub mod process;
pub mod profile;
pub mod proxy_settings;
pub mod supervise;
