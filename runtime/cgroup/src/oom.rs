//! How many processes of a group the kernel killed for want of memory.
//!
//! It counts a kill where the victim was, not where the limit is: so a container's
//! own count tells of its processes also when the pod's limit was hit, and never of
//! another container's.

use std::path::Path;

use crate::error::Result;
use crate::files::{keyed, read_if_there};
use crate::group::tree;

/// v1 counts in the victim's group alone, so those below are added.
pub(crate) fn v1(dir: &Path) -> Result<u64> {
    tree(dir)?.iter().try_fold(0, |sum: u64, dir| {
        let kills = count(dir, "memory.oom_control")?.unwrap_or(0);
        Ok(sum.saturating_add(kills))
    })
}

/// v2 counts upwards too, except on a mount with `memory_localevents`.
pub(crate) fn v2(dir: &Path) -> Result<u64> {
    let whole = count(dir, "memory.events")?.unwrap_or(0);
    let local = tree(dir)?.iter().try_fold(0, |sum: u64, dir| {
        let kills = count(dir, "memory.events.local")?.unwrap_or(0);
        Ok(sum.saturating_add(kills))
    })?;
    Ok(whole.max(local))
}

fn count(dir: &Path, file: &str) -> Result<Option<u64>> {
    let text = read_if_there(&dir.join(file))?;
    Ok(text.and_then(|text| keyed(&text, "oom_kill")))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::{v1, v2};

    fn group(name: &str, files: &[(&str, &str)]) -> PathBuf {
        let name = format!("carpel-oom-{name}-{}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        for (file, text) in files {
            let path = dir.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    #[test]
    fn kills_in_groups_below_are_the_groups_own() {
        let old = "oom_kill_disable 0\nunder_oom 0\noom_kill ";
        let dir = group(
            "v1",
            &[
                ("memory.oom_control", &format!("{old}1\n")),
                ("inner/memory.oom_control", &format!("{old}2\n")),
            ],
        );
        assert_eq!(v1(&dir).unwrap(), 3);
        fs::remove_dir_all(&dir).unwrap();
        assert_eq!(v1(&dir).unwrap(), 0);
    }

    #[test]
    fn the_hierarchical_count_of_v2_is_not_counted_twice() {
        let dir = group(
            "v2",
            &[
                ("memory.events", "low 0\nmax 9\noom 4\noom_kill 3\n"),
                ("memory.events.local", "oom 4\noom_kill 1\n"),
                ("inner/memory.events.local", "oom_kill 2\n"),
            ],
        );
        assert_eq!(v2(&dir).unwrap(), 3);
        // With memory_localevents the whole is what the parts say.
        fs::write(dir.join("memory.events"), "oom_kill 1\n").unwrap();
        assert_eq!(v2(&dir).unwrap(), 3);
        fs::remove_dir_all(&dir).unwrap();
    }
}
