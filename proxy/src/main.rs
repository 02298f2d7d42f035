//! `kato-proxy`: parse, settings, build, run, exit. Everything else is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(kato_proxy::cli::run())
}
