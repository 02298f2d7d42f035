//! The fetcher against a small server on loopback.
