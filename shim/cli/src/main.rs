//! `carpel`: a kubectl-shaped client of any CRI socket.

#![forbid(unsafe_code)]

mod args;
mod client;
mod commands;
mod doctor;
mod error;
mod keys;
mod logs;
mod manifest;
mod out;
mod output;
mod resolve;
mod select;
mod state;
mod suggest;
mod time;
mod view;
mod volumes;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let args = match args::Args::try_parse() {
        Ok(args) => args,
        Err(error) => return out::usage(&error),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error::CliError::io("start", error));
    match runtime.and_then(|runtime| runtime.block_on(Box::pin(commands::run(args)))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => out::fail(&error),
    }
}
