//! The page that `make bench` writes.

use std::fmt::Write;

use anyhow::Context;

use crate::samples::{Measure, Results};
use crate::subject::BASE;

pub(crate) fn markdown(results: &Results) -> anyhow::Result<String> {
    let mut text = String::from(
        "# Bench\n\nWritten by `make bench`. Every runtime does the same in turn, in one run, on one machine; \
         a value is the median, in brackets the 90th percentile, then the ratio to \
         containerd. Only the ratios carry over to other machines.\n\n",
    );
    writeln!(
        text,
        "Machine: {}. Runtimes: {}.",
        machine()?,
        versions(results)
    )?;
    writeln!(
        text,
        "Burst: {} pods; standing: {} pods. Each pod has a network of its own and one container.\n",
        results.burst, results.crowd
    )?;
    write!(text, "| what | unit |")?;
    for (name, _) in &results.runtimes {
        write!(text, " {name} |")?;
    }
    writeln!(text, "\n|---|---|{}", "---|".repeat(results.runtimes.len()))?;
    for measure in Measure::ALL {
        write!(text, "| {} | {} |", measure.name(), measure.unit())?;
        for (name, _) in &results.runtimes {
            write!(text, " {} |", cell(results, measure, name))?;
        }
        writeln!(text)?;
    }
    writeln!(text, "\n![ratios to containerd](bench.svg)")?;
    Ok(text)
}

fn cell(results: &Results, measure: Measure, runtime: &'static str) -> String {
    let Some((median, tenth)) = results.quantiles(measure, runtime) else {
        return "-".to_owned();
    };
    let mut cell = number(median);
    if measure.unit() == "ms" {
        cell = format!("{cell} ({})", number(tenth));
    }
    match results.median(measure, BASE) {
        Some(base) if runtime != BASE && base > 0.0 => {
            format!("{cell} · **{:.2}**", median / base)
        }
        _ => cell,
    }
}

/// With as many digits as mean something.
fn number(value: f64) -> String {
    if value >= 100.0 {
        format!("{value:.0}")
    } else if value >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

fn versions(results: &Results) -> String {
    let parts: Vec<_> = results
        .runtimes
        .iter()
        .map(|(name, version)| format!("{name} ({version})"))
        .collect();
    parts.join(", ")
}

fn machine() -> anyhow::Result<String> {
    let cores = std::thread::available_parallelism().context("count the cores")?;
    let release =
        std::fs::read_to_string("/proc/sys/kernel/osrelease").context("kernel release")?;
    let unified = std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let version = if unified { "v2" } else { "v1" };
    Ok(format!(
        "{cores} cores, Linux {}, cgroup {version}",
        release.trim()
    ))
}
