//! What the daemon is allowed to do.

use crate::doctor::facts::Process;
use crate::doctor::line::{Level, Line, Lines};

/// By number: without these nothing works.
const NEEDED: [(u32, &str); 11] = [
    (0, "CAP_CHOWN"),
    (1, "CAP_DAC_OVERRIDE"),
    (3, "CAP_FOWNER"),
    (5, "CAP_KILL"),
    (6, "CAP_SETGID"),
    (7, "CAP_SETUID"),
    (8, "CAP_SETPCAP"),
    (12, "CAP_NET_ADMIN"),
    (18, "CAP_SYS_CHROOT"),
    (21, "CAP_SYS_ADMIN"),
    (27, "CAP_MKNOD"),
];

/// Without these some pods do not get what they ask for.
const WANTED: [(u32, &str, &str); 7] = [
    (4, "CAP_FSETID", "set-id bits of images may be lost"),
    (
        10,
        "CAP_NET_BIND_SERVICE",
        "containers cannot have it by default as elsewhere",
    ),
    (13, "CAP_NET_RAW", "containers cannot ping"),
    (
        19,
        "CAP_SYS_PTRACE",
        "containers cannot be debugged from others",
    ),
    (
        24,
        "CAP_SYS_RESOURCE",
        "a negative oom_score_adj and higher limits cannot be set",
    ),
    (
        29,
        "CAP_AUDIT_WRITE",
        "containers cannot have it by default as elsewhere",
    ),
    (31, "CAP_SETFCAP", "file capabilities of images are lost"),
];

/// Sockets, logs and mounts of some hundred pods.
const FILES: u64 = 65_536;

pub(super) fn judge(process: &Process) -> Vec<Line> {
    let mut lines = Lines::of("rights");
    let whose = process.whose;
    if !process.root {
        lines.fail(format!("{whose} is not run by root"), "run it as root");
    }
    let has = |number: u32| process.capabilities & (1 << number) != 0;
    for (number, name) in NEEDED {
        if !has(number) {
            let message = format!("{whose} lacks {name}");
            lines.fail(message, "give it back, in the unit or in what it runs in");
        }
    }
    for (number, name, loss) in WANTED {
        if !has(number) {
            lines.warn(format!("{whose} lacks {name}"), loss);
        }
    }
    if lines.lines.is_empty() {
        lines.ok(format!("{whose} has every capability that is needed"));
    }
    if let Some(files) = process.open_files
        && files < FILES
    {
        let message = format!("{whose} may open only {files} files");
        lines.add(
            Level::Warning,
            message,
            "set LimitNOFILE of the unit to 1048576",
        );
    }
    lines.lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process() -> Process {
        Process {
            whose: "carpeld",
            root: true,
            capabilities: u64::MAX,
            open_files: Some(FILES),
        }
    }

    fn worst(process: &Process) -> (Level, String) {
        let line = judge(process)
            .into_iter()
            .max_by_key(|line| line.level)
            .unwrap();
        (line.level, line.message)
    }

    #[test]
    fn root_with_everything_is_well() {
        assert_eq!(worst(&process()).0, Level::Ok);
    }

    #[test]
    fn what_is_lacking_is_named() {
        let without = |number: u32| Process {
            capabilities: !(1 << number),
            ..process()
        };
        let (level, message) = worst(&without(24));
        assert_eq!(level, Level::Warning);
        assert!(message.contains("CAP_SYS_RESOURCE"), "{message}");
        let (level, message) = worst(&without(21));
        assert_eq!(level, Level::Failed);
        assert!(message.contains("CAP_SYS_ADMIN"), "{message}");
    }

    #[test]
    fn others_than_root_and_few_files_are_told() {
        let mut other = process();
        other.root = false;
        assert_eq!(worst(&other).0, Level::Failed);
        let mut few = process();
        few.open_files = Some(1024);
        assert_eq!(worst(&few).0, Level::Warning);
    }
}
