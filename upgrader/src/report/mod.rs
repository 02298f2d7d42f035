//! What a person or a program reads of a run: lines for people on stderr, JSON events on stdout.
//!
//! Only this folder writes to the terminal. Data goes to stdout, everything else to stderr.

pub mod terminal;
