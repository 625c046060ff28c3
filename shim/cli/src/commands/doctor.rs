//! `carpel doctor`

use serde::Serialize;

use crate::args::{Doctor, Global, Listing};
use crate::doctor::{self, Level, Line};
use crate::error::{CliError, Result};
use crate::out;
use crate::output::{self, Table};

#[derive(Serialize)]
struct Report<'a> {
    ok: usize,
    warnings: usize,
    failed: usize,
    lines: &'a [Line],
}

/// Ends with 0 when all is well, with 1 after warnings, with 2 after failures.
pub(super) async fn run(global: &Global, args: &Doctor) -> Result<()> {
    let lines = doctor::judge(&doctor::gather(global, args).await);
    let count = |level| lines.iter().filter(|line| line.level == level).count();
    let report = Report {
        ok: count(Level::Ok),
        warnings: count(Level::Warning),
        failed: count(Level::Failed),
        lines: &lines,
    };
    match args.output {
        Listing::Json => out::text(&output::json(&report)?)?,
        Listing::Table => print(&report)?,
    }
    match (report.failed, report.warnings) {
        (1.., _) => Err(CliError::Exit(2)),
        (0, 1..) => Err(CliError::Exit(1)),
        (0, 0) => Ok(()),
    }
}

fn print(report: &Report<'_>) -> Result<()> {
    let mut table = Table::new(&["TOPIC", "STATE", "WHAT"]);
    for line in report.lines {
        let state = match line.level {
            Level::Ok => "ok",
            Level::Warning => "warning",
            Level::Failed => "failed",
        };
        table.row([
            line.topic.to_owned(),
            state.to_owned(),
            line.message.clone(),
        ]);
        if !line.advice.is_empty() {
            let advice = format!("-> {}", line.advice);
            table.row(["  ".to_owned(), "  ".to_owned(), advice]);
        }
    }
    out::text(&table.render())?;
    out::line(format!(
        "{} ok, {} warnings, {} failed",
        report.ok, report.warnings, report.failed
    ))
}
