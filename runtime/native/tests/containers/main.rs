//! Containers made for real, each case in a process of its own.
//!
//! The executor clones its process, which one with several threads cannot do, so
//! every case runs in a fresh copy of this program that plays the holder.

#![expect(clippy::unwrap_used, reason = "a test ends where it goes wrong")]

mod attacks;
mod cleanup;
mod harness;
mod hierarchy;
mod lifecycle;
mod permissions;
mod processes;
mod tree;

use std::io::Read;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// A name that is a sentence, and what it claims.
type Case = (&'static str, fn());

const LIMIT: Duration = Duration::from_secs(60);

fn cases() -> Vec<Case> {
    [
        lifecycle::CASES,
        processes::CASES,
        permissions::CASES,
        tree::CASES,
        hierarchy::CASES,
        attacks::CASES,
    ]
    .concat()
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, name] = args.as_slice()
        && flag == "--case"
    {
        let (_, case) = cases()
            .into_iter()
            .find(|(known, _)| known == name)
            .unwrap();
        harness::become_holder();
        case();
        return ExitCode::SUCCESS;
    }
    let filter = args.iter().find(|arg| !arg.starts_with('-'));
    let (chosen, left): (Vec<Case>, Vec<Case>) = cases()
        .into_iter()
        .partition(|(name, _)| filter.is_none_or(|part| name.contains(part.as_str())));
    if args.iter().any(|arg| arg == "--list") {
        chosen.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    run_all(&chosen, left.len())
}

fn run_all(chosen: &[Case], filtered: usize) -> ExitCode {
    cleanup::adopt_orphans();
    let began = Instant::now();
    println!("\nrunning {} tests", chosen.len());
    let mut failures = Vec::new();
    for (name, _) in chosen {
        let failure = run(name);
        println!(
            "test {name} ... {}",
            if failure.is_some() { "FAILED" } else { "ok" }
        );
        failures.extend(failure.map(|output| (name, output)));
    }
    for (name, output) in &failures {
        println!("\n---- {name} ----\n{output}");
    }
    let (word, code) = if failures.is_empty() {
        ("ok", ExitCode::SUCCESS)
    } else {
        ("FAILED", ExitCode::FAILURE)
    };
    println!(
        "\ntest result: {word}. {} passed; {} failed; 0 ignored; 0 measured; {filtered} filtered \
         out; finished in {:.2}s\n",
        chosen.len() - failures.len(),
        failures.len(),
        began.elapsed().as_secs_f64(),
    );
    code
}

/// Returns what a failed case printed.
fn run(name: &str) -> Option<String> {
    let mut child = Command::new("/proc/self/exe")
        .args(["--case", name])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = child.stderr.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        stderr.read_to_end(&mut text).unwrap();
        String::from_utf8_lossy(&text).into_owned()
    });
    let began = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break Some(status);
        }
        if began.elapsed() > LIMIT {
            child.kill().unwrap();
            child.wait().unwrap();
            break None;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    cleanup::after(child.id());
    let output = reader.join().unwrap();
    match status {
        Some(status) if status.success() => None,
        Some(status) => Some(format!("{status}\n{output}")),
        None => Some(format!("took longer than {LIMIT:?}\n{output}")),
    }
}
