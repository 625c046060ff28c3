//! Holds one pod. Started by the daemon with the control socket, listening, as
//! standard input; takes no arguments.

use std::process::ExitCode;

fn main() -> ExitCode {
    match carpel_runtime::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("carpel-holder: {error}");
            ExitCode::FAILURE
        }
    }
}
