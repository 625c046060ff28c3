//! Capabilities and limits of a process, from /proc.

use std::fs;

use crate::doctor::facts::Process;

/// Of the daemon, if it told who it is; else our own.
pub(super) fn look(pid: Option<u32>) -> Process {
    let daemon = pid.and_then(|pid| parse("carpeld", &pid.to_string()));
    daemon
        .or_else(|| parse("this user", "self"))
        .unwrap_or_default()
}

fn parse(whose: &'static str, pid: &str) -> Option<Process> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap_or_default();
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
    Some(Process {
        whose,
        root: field("Uid:")?.split_whitespace().nth(1) == Some("0"),
        capabilities: u64::from_str_radix(field("CapEff:")?.trim(), 16).ok()?,
        open_files: open_files(&limits).filter(|_| pid != "self"),
    })
}

fn open_files(limits: &str) -> Option<u64> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::{look, open_files};

    #[test]
    fn limits_are_read() {
        let text = "Max processes  10  20  processes\nMax open files   1024   4096   files\n";
        assert_eq!(open_files(text), Some(1024));
        assert_eq!(
            open_files("Max open files unlimited unlimited files"),
            Some(u64::MAX)
        );
        assert_eq!(open_files(""), None);
    }

    #[test]
    fn without_a_daemon_it_is_about_ourselves() {
        assert_eq!(look(None).whose, "this user");
        assert_eq!(look(Some(std::process::id())).whose, "carpeld");
    }
}
