//! The one program that runs inside the lab's namespaces; see [`integration_tests::lab`].

use std::{
    env,
    io::{self, Write},
    process::ExitCode,
};

use integration_tests::lab::inside;

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let Err(error) = inside::main(&args) else {
        return ExitCode::SUCCESS;
    };
    // stderr is the log of the lab or of the node; when it is gone there is nobody to tell.
    writeln!(io::stderr(), "lab {}: {error:#}", args.join(" ")).ok();
    ExitCode::from(inside::FAULT)
}
