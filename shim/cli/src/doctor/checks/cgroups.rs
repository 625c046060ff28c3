//! Hierarchies, controllers, and whether we may write to them.

use crate::doctor::facts::Cgroups;
use crate::doctor::line::{Level, Line, Lines};

/// What each controller is for, and how bad it is to be without.
const CONTROLLERS: [(&str, Level, &str); 6] = [
    (
        "memory",
        Level::Failed,
        "memory limits and statistics need it",
    ),
    ("pids", Level::Failed, "process limits need it"),
    ("cpu", Level::Failed, "cpu shares and quotas need it"),
    (
        "cpuset",
        Level::Warning,
        "pods that are bound to cpus need it",
    ),
    ("io", Level::Warning, "statistics of block devices need it"),
    ("hugetlb", Level::Warning, "limits on huge pages need it"),
];

pub(super) fn judge(cgroups: &Cgroups) -> Vec<Line> {
    let mut lines = Lines::of("cgroups");
    let unified = cgroups.v2.is_some()
        && (cgroups.v1.is_empty() || cgroups.v2_controllers.iter().any(|c| c == "memory"));
    match (&cgroups.v2, cgroups.v1.is_empty()) {
        (None, true) => {
            lines.fail(
                "no cgroup filesystem is mounted",
                "mount cgroup2 on /sys/fs/cgroup",
            );
            return lines.lines;
        }
        (Some(_), true) => lines.ok("version 2"),
        (Some(_), false) if unified => lines.ok("hybrid; version 2 has the controllers"),
        (Some(_), false) => lines.ok("hybrid; version 1 has the controllers"),
        (None, false) => lines.ok("version 1"),
    }
    let (mut there, mut missing) = (Vec::new(), Vec::new());
    for (name, level, need) in CONTROLLERS {
        let v1_name = if name == "io" { "blkio" } else { name };
        let has = match unified {
            true => cgroups.v2_controllers.iter().any(|c| c == name),
            false => cgroups.v1.contains_key(v1_name),
        };
        match has {
            true => there.push(name),
            false => missing.push((name, level, need)),
        }
    }
    lines.ok(format!("controllers {}", there.join(", ")));
    for (name, level, need) in missing {
        let message = format!("no controller {name}: {need}");
        lines.add(
            level,
            message,
            "enable it in the kernel, or on its command line",
        );
    }
    for path in &cgroups.read_only {
        let message = format!("{} is read-only", path.display());
        lines.fail(message, "mount it writable, or delegate a part of it");
    }
    lines.lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worst(cgroups: &Cgroups) -> Level {
        let levels = judge(cgroups).into_iter().map(|line| line.level);
        levels.max().unwrap()
    }

    fn full() -> Cgroups {
        Cgroups {
            v2: Some("/sys/fs/cgroup".into()),
            v2_controllers: CONTROLLERS.map(|(name, ..)| name.to_owned()).into(),
            ..Cgroups::default()
        }
    }

    #[test]
    fn a_full_second_version_is_well() {
        assert_eq!(worst(&full()), Level::Ok);
    }

    #[test]
    fn in_a_hybrid_the_version_with_memory_counts() {
        let mut hybrid = full();
        hybrid.v2_controllers = vec!["hugetlb".into()];
        for name in ["memory", "pids", "cpu", "cpuset", "blkio"] {
            hybrid
                .v1
                .insert(name.into(), format!("/sys/fs/cgroup/{name}").into());
        }
        let lines = judge(&hybrid);
        assert!(lines[0].message.contains("version 1 has"));
        assert_eq!(worst(&hybrid), Level::Warning, "hugetlb is in the other");
    }

    #[test]
    fn a_missing_controller_or_a_read_only_tree_fails() {
        let mut bad = full();
        bad.v2_controllers.retain(|name| name != "pids");
        assert_eq!(worst(&bad), Level::Failed);
        let mut bad = full();
        bad.read_only = vec!["/sys/fs/cgroup".into()];
        assert_eq!(worst(&bad), Level::Failed);
        assert_eq!(worst(&Cgroups::default()), Level::Failed);
    }
}
