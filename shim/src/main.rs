//! `carpeld`: the node daemon that serves the CRI.

mod admin;
mod app;
mod args;
mod authority;
mod backends;
mod cdi;
mod config;
mod copy_up;
mod cri;
mod deadline;
mod error;
mod handlers;
mod holder;
mod host_files;
mod leftovers;
mod listen;
mod logging;
mod metrics;
mod notify;
mod pod;
mod reload;
mod seccomp;
mod state;
mod systemd;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    match args::run(&args::Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("carpeld: {error:#}");
            ExitCode::FAILURE
        }
    }
}
