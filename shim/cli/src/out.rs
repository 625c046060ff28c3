//! Writing to the terminal. A reader that went away is no reason to panic.

use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use crate::error::{CliError, Result};

/// Writes bytes to stdout.
pub(crate) fn bytes(data: &[u8]) -> Result<()> {
    written(write_all(&mut io::stdout().lock(), data))
}

/// Writes a text to stdout.
pub(crate) fn text(text: &str) -> Result<()> {
    bytes(text.as_bytes())
}

/// Writes a line to stdout.
pub(crate) fn line(line: impl AsRef<str>) -> Result<()> {
    text(&format!("{}\n", line.as_ref()))
}

/// Writes bytes to stderr, for a program that was run for the user.
pub(crate) fn error_bytes(data: &[u8]) -> Result<()> {
    written(write_all(&mut io::stderr().lock(), data))
}

/// Tells the user something beside the output; nobody has to listen.
pub(crate) fn note(line: impl AsRef<str>) {
    let line = format!("carpel: {}\n", line.as_ref());
    drop(write_all(&mut io::stderr().lock(), line.as_bytes()));
}

/// Prints the error and gives the exit code.
pub(crate) fn fail(error: &CliError) -> ExitCode {
    if !matches!(error, CliError::Exit(_) | CliError::Closed) {
        note(error.to_string());
    }
    ExitCode::from(error.exit_code())
}

/// Prints clap's answer: help and version on stdout, mistakes on stderr with exit code 2.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    let told = error.print();
    if error.use_stderr() {
        return ExitCode::from(2);
    }
    match written(told) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn write_all(to: &mut impl Write, data: &[u8]) -> io::Result<()> {
    to.write_all(data)?;
    to.flush()
}

fn written(result: io::Result<()>) -> Result<()> {
    result.map_err(|error| match error.kind() {
        ErrorKind::BrokenPipe => CliError::Closed,
        _ => CliError::io("write output", error),
    })
}
