//! `carpel completion`, `carpel man`

use std::path::Path;

use clap::CommandFactory;

use crate::args::{Args, Completion};
use crate::error::{Doing, Result};
use crate::out;

pub(super) fn completion(args: &Completion) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Args::command(), "carpel", &mut script);
    out::bytes(&script)
}

/// A page for carpel and one for each of its commands.
pub(super) fn man(dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir).doing(format_args!("make {}", dir.display()))?;
    let command = Args::command().disable_help_subcommand(true);
    clap_mangen::generate_to(command, dir).doing(format_args!("write to {}", dir.display()))
}
