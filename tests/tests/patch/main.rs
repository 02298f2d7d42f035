//! Patches through the real programs: published, listed, installed, killed, rolled back, taken back, and demanded by a release.

mod cluster;
mod gate;
mod install;
mod kills;
mod publish;
mod revert;
mod site;
