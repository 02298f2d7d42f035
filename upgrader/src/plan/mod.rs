//! Plans: pure functions from facts and the time to what will be done. No I/O, so that every decision can be printed before
//! it is carried out and tested without a machine.

pub mod absence;
pub mod batch;
pub mod capacity;
pub mod cluster;
pub mod estimate;
pub mod facts;
mod needs;
pub mod node;
pub mod order;
pub mod policy;
pub mod preflight;
pub mod survey;
pub mod way_back;
