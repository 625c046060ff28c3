//! The command line: what to run with which configuration.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use clap::{CommandFactory, Parser, Subcommand};

use crate::config::{Config, Loaded, flatten, load};
use crate::leftovers::{self, Places};
use crate::{app, backends, logging};

/// Carpel's node daemon: a Kubernetes container runtime (CRI v1).
#[derive(Debug, Parser)]
#[command(name = "carpeld", version)]
pub(crate) struct Args {
    /// Configuration file (TOML); without it the defaults hold. Files *.toml of the
    /// directory beside it, config.d for config.toml, are merged over it in order
    #[arg(long, short, global = true, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Read the configuration, report mistakes, and end
    #[arg(long)]
    check_config: bool,

    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve (the default)
    Run,
    /// Read the configuration, report mistakes, print what differs from the defaults
    /// and where that stands, and end
    CheckConfig,
    /// Print the default configuration as TOML
    DefaultConfig,
    /// Print the configuration with all its drop-ins as TOML
    DumpConfig,
    /// Print what of ours stands on the node and has no record, as JSON. Changes
    /// nothing; the daemon need not run
    Leftovers,
    /// Remove what the daemon leaves on the host between runs: bridge, nftables
    /// table, cgroup root. Refused while there are pods
    Cleanup,
    /// Write the manual page of carpeld to a directory
    #[command(hide = true)]
    Man { dir: PathBuf },
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    carpel_sys::allocator::return_large_blocks();
    let command = match &args.command {
        _ if args.check_config => &Command::CheckConfig,
        Some(command) => command,
        None => &Command::Run,
    };
    match command {
        Command::DefaultConfig => return print(&Config::default().to_toml()?),
        Command::Man { dir } => return man(dir),
        _ => {}
    }
    let loaded = match &args.config {
        Some(path) => load(path)?,
        None => Loaded::default(),
    };
    match command {
        Command::CheckConfig => print(&checked(&loaded)?),
        Command::DumpConfig => print(&loaded.config.to_toml()?),
        Command::Leftovers => print(&leftovers(&loaded.config)?),
        Command::Cleanup => {
            logging::init(&loaded.config.log.level)?;
            runtime()?.block_on(app::cleanup(loaded.config))
        }
        Command::Run | Command::DefaultConfig | Command::Man { .. } => {
            let log = logging::init(&loaded.config.log.level)?;
            runtime()?.block_on(app::serve(loaded.config, args.config.clone(), log))
        }
    }
}

fn print(text: &str) -> anyhow::Result<()> {
    std::io::stdout()
        .write_all(text.as_bytes())
        .context("write to standard output")
}

/// Every key that differs from its default, with its value and where it was set.
fn checked(loaded: &Loaded) -> anyhow::Result<String> {
    let defaults = flatten(&Config::default())?;
    let mut text = String::from("configuration is valid\n");
    for (key, value) in flatten(&loaded.config)? {
        if defaults.get(&key) != Some(&value)
            && let Some(origin) = loaded.origins.of(&key)
        {
            text.push_str(&format!("{key} = {value}  # {origin}\n"));
        }
    }
    Ok(text)
}

fn leftovers(config: &Config) -> anyhow::Result<String> {
    let report = leftovers::look(&places(config)?);
    Ok(serde_json::to_string_pretty(&report)? + "\n")
}

/// Where to look for leftovers of a daemon with this configuration.
pub(crate) fn places(config: &Config) -> anyhow::Result<Places> {
    Ok(Places {
        root: config.paths.root.clone(),
        run: config.paths.run.clone(),
        cgroup_root: backends::places(config)?.root().to_owned(),
        bridge: backends::bridge_if_used(config)?,
    })
}

fn man(dir: &std::path::Path) -> anyhow::Result<()> {
    let command = Args::command().disable_help_subcommand(true);
    let mut page = Vec::new();
    let pages = clap_mangen::Man::new(command).section("8");
    pages.render(&mut page).context("render the manual page")?;
    let path = dir.join("carpeld.8");
    std::fs::write(&path, page).with_context(|| format!("write {}", path.display()))
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("carpeld")
        .build()
        .context("cannot start the async runtime")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::{Args, Loaded, checked};

    #[test]
    fn the_definitions_fit_together() {
        Args::command().debug_assert();
    }

    #[test]
    fn only_what_differs_is_told_and_where_it_stands() {
        assert_eq!(
            checked(&Loaded::default()).unwrap(),
            "configuration is valid\n"
        );
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        std::fs::write(
            &path,
            "[log]\nlevel = \"info\"\n[images]\nparallel_layers = 9\n",
        )
        .unwrap();
        let text = checked(&crate::config::load(&path).unwrap()).unwrap();
        let place = format!("images.parallel_layers = 9  # {}:4\n", path.display());
        assert!(
            text.ends_with(&place) && !text.contains("log.level"),
            "{text}"
        );
    }
}
