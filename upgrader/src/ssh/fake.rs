//! A node that lives in memory.
