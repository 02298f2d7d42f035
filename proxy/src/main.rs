//! `kato-proxy`: parse, settings, build, run, exit. Everything else is in the library.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// A request for something small that is not stored yet makes some hundred allocations on one thread, and another frees many of them:
/// with the C library's allocator such requests take half as long again (`docs/performance.md`).
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    ExitCode::from(kato_proxy::cli::run())
}
