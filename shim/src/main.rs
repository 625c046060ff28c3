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

use clap::Parser;

fn main() -> ExitCode {
    let args = args::Args::parse();
    match args::run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("carpeld: {error:#}");
            ExitCode::FAILURE
        }
    }
}
