//! The command line: what to run with which configuration.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::app;
use crate::config::Config;

/// Carpel's node daemon: a Kubernetes container runtime (CRI v1).
#[derive(Debug, Parser)]
#[command(name = "carpeld", version)]
pub(crate) struct Args {
    /// Configuration file (TOML); without it the defaults hold
    #[arg(long, short, global = true, value_name = "FILE")]
    config: Option<PathBuf>,

    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve (the default)
    Run,
    /// Read the configuration, report mistakes, and end
    CheckConfig,
    /// Print the default configuration as TOML
    DefaultConfig,
    /// Remove what the daemon leaves on the host between runs: bridge, nftables
    /// table, cgroup root. Refused while there are pods.
    Cleanup,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let config = match &args.config {
        Some(path) => Config::load(path)?,
        None => Config::default(),
    };
    match args.command.as_ref().unwrap_or(&Command::Run) {
        Command::DefaultConfig => {
            std::io::stdout().write_all(Config::default().to_toml()?.as_bytes())?;
            Ok(())
        }
        Command::CheckConfig => {
            println!("configuration is valid");
            Ok(())
        }
        Command::Run => {
            init_tracing(&config)?;
            runtime()?.block_on(app::serve(config))
        }
        Command::Cleanup => {
            init_tracing(&config)?;
            runtime()?.block_on(app::cleanup(config))
        }
    }
}

fn init_tracing(config: &Config) -> anyhow::Result<()> {
    let filter = EnvFilter::builder()
        .parse(&config.log.level)
        .with_context(|| format!("log.level: {:?} is not a filter", config.log.level))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    Ok(())
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("carpeld")
        .build()
        .context("cannot start the async runtime")
}
