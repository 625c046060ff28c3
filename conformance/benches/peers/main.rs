//! `make bench`: Carpel beside containerd on one machine, in one run.
//!
//! Each round does the same to every runtime in turn, so that what else goes on
//! here troubles all of them alike. Only the ratios carry over to other machines.

mod calls;
mod containerd;
mod life;
mod many;
mod memory;
mod plot;
mod samples;
mod subject;
mod table;

use std::path::PathBuf;

use anyhow::{Context, ensure};
use carpel_conformance::paths;

use samples::Results;
use subject::Subject;

/// How much of each is done.
#[derive(Debug, Clone, Copy)]
struct Scale {
    rounds: usize,
    idle_rounds: usize,
    burst: usize,
    bursts: usize,
    crowd: usize,
}

const WHOLE: Scale = Scale {
    rounds: 40,
    idle_rounds: 15,
    burst: 50,
    bursts: 2,
    crowd: 100,
};

/// Enough to see that it works (`BENCH_QUICK=1`).
const QUICK: Scale = Scale {
    rounds: 3,
    idle_rounds: 2,
    burst: 6,
    bursts: 1,
    crowd: 8,
};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let scale = match std::env::var_os("BENCH_QUICK") {
        Some(_) => QUICK,
        None => WHOLE,
    };
    let subjects = subject::all().await?;
    let mut results = Results::default();
    for subject in &subjects {
        results.note_version(subject.name, subject.version().await?);
    }
    let measured = measure(&subjects, scale, &mut results).await;
    for subject in subjects {
        subject.end().await?;
    }
    measured?;
    let text = table::markdown(&results)?;
    print!("{text}");
    let folder = match std::env::var_os("BENCH_OUT") {
        Some(folder) => PathBuf::from(folder),
        None => paths::workspace().join("docs"),
    };
    ensure!(folder.is_dir(), "{} is no folder", folder.display());
    let page = folder.join("bench.md");
    std::fs::write(&page, text).with_context(|| format!("write {}", page.display()))?;
    plot::draw(&results, &folder.join("bench.svg"))
}

async fn measure(subjects: &[Subject], scale: Scale, results: &mut Results) -> anyhow::Result<()> {
    eprintln!("bench: {} lives of a pod, back to back", scale.rounds);
    life::back_to_back(subjects, scale.rounds, results).await?;
    eprintln!("bench: {} lives of a pod, after a pause", scale.idle_rounds);
    life::after_a_pause(subjects, scale.idle_rounds, results).await?;
    for subject in subjects {
        for _ in 0..scale.bursts {
            eprintln!("bench: {}: {} pods at once", subject.name, scale.burst);
            many::burst(subject, scale.burst, results).await?;
        }
        eprintln!("bench: {}: {} pods standing", subject.name, scale.crowd);
        many::crowd(subject, scale.crowd, results).await?;
    }
    Ok(())
}
