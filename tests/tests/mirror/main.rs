//! The offline mirror: a store is filled before anybody asks (`prefetch`), served without its origins (`serve --offline`), and what it lacks
//! comes back as a request file.
//!
//! Each test ends the origins before clients come: whatever they get is in the store.

mod apt;
mod every_name;
mod fill;
mod languages;
mod misses;
mod registry;
#[path = "../languages/site.rs"]
#[expect(dead_code, reason = "shared with the area `languages`, which uses more of it")]
mod site;
