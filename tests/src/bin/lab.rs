//! The one program that runs inside the lab's namespaces; see [`integration_tests::lab`].

use std::{env, process::ExitCode};

fn main() -> anyhow::Result<ExitCode> {
    let args: Vec<String> = env::args().skip(1).collect();
    integration_tests::lab::inside::main(&args)?;
    Ok(ExitCode::SUCCESS)
}
