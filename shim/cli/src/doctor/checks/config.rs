//! The configuration, and the filesystems it points to.

use crate::doctor::facts::{Config, Disk, Filesystem};
use crate::doctor::line::{Line, Lines};
use crate::view;

/// Percent of bytes or inodes.
const SCARCE: u64 = 10;
const NONE_LEFT: u64 = 2;

pub(super) fn judge(config: &Config, disks: &[Disk]) -> Vec<Line> {
    let mut lines = Lines::of("config");
    match (&config.mistake, &config.unknown) {
        (Some(mistake), _) => lines.fail(
            mistake.clone(),
            "mend the file; carpeld check-config tells more",
        ),
        (None, Some(why)) => lines.warn(
            format!("{why}; the defaults are taken for it"),
            "put carpeld beside carpel or into PATH, or name it by --carpeld",
        ),
        (None, None) => lines.ok(format!("valid: {}", config.from)),
    }
    for disk in disks {
        match disk.key {
            "paths.run" => run(&mut lines, disk),
            _ => root(&mut lines, disk),
        }
    }
    lines.lines
}

fn named(disk: &Disk) -> String {
    format!("{} {}", disk.key, disk.path.display())
}

fn root(lines: &mut Lines, disk: &Disk) {
    let name = named(disk);
    if let Some(why) = &disk.unreadable {
        lines.fail(
            format!("{name}: {why}"),
            "choose a path that can be reached",
        );
        return;
    }
    let before = lines.lines.len();
    match disk.kind {
        Filesystem::Memory => lines.warn(
            format!("{name} is in memory"),
            "images take up memory and are gone after a restart: use a disk",
        ),
        Filesystem::Overlay => lines.fail(
            format!("{name} is on an overlay"),
            "overlays cannot be stacked on it: use a real filesystem",
        ),
        Filesystem::Network => lines.fail(
            format!("{name} is on a network filesystem"),
            "overlays need a local one",
        ),
        Filesystem::Disk => {}
    }
    if disk.entry_types == Some(false) {
        let advice = "make it anew with entry types (xfs: ftype=1)";
        lines.fail(format!("{name}: directory entries have no type"), advice);
    }
    writable(lines, disk, &name);
    room(lines, &name, "space", disk.bytes_free, disk.bytes);
    room(lines, &name, "inodes", disk.inodes_free, disk.inodes);
    if lines.lines.len() == before {
        let free = view::size(disk.bytes_free);
        lines.ok(format!("{name}: a disk with {free} free"));
    }
}

fn run(lines: &mut Lines, disk: &Disk) {
    let name = named(disk);
    if let Some(why) = &disk.unreadable {
        lines.fail(
            format!("{name}: {why}"),
            "choose a path that can be reached",
        );
        return;
    }
    let before = lines.lines.len();
    if disk.kind != Filesystem::Memory {
        lines.warn(
            format!("{name} is not in memory"),
            "use a tmpfs: what is there means nothing after a restart",
        );
    }
    writable(lines, disk, &name);
    if lines.lines.len() == before {
        lines.ok(format!("{name}: in memory"));
    }
}

fn writable(lines: &mut Lines, disk: &Disk, name: &str) {
    if disk.read_only {
        lines.fail(format!("{name} is read-only"), "mount it writable");
    }
}

fn room(lines: &mut Lines, name: &str, what: &str, free: u64, all: u64) {
    // Some filesystems do not count inodes.
    if all == 0 {
        return;
    }
    let percent = u128::from(free) * 100 / u128::from(all);
    let message = format!("{name}: {percent} % of {what} left");
    let advice = "remove images (carpel rmi), or make room";
    if percent < u128::from(NONE_LEFT) {
        lines.fail(message, advice);
    } else if percent < u128::from(SCARCE) {
        lines.warn(message, advice);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::line::Level;

    fn disk(key: &'static str, kind: Filesystem) -> Disk {
        Disk {
            key,
            path: "/x".into(),
            kind,
            bytes: 1000,
            bytes_free: 500,
            inodes: 100,
            inodes_free: 50,
            entry_types: Some(true),
            ..Disk::default()
        }
    }

    fn level(disk: Disk) -> Level {
        let lines = judge(&Config::default(), &[disk]);
        lines.into_iter().map(|line| line.level).max().unwrap()
    }

    #[test]
    fn a_mistake_is_passed_on_as_it_was_told() {
        let config = Config {
            mistake: Some("x.toml: line 3: unknown field `a`".into()),
            ..Config::default()
        };
        let line = &judge(&config, &[])[0];
        assert_eq!(line.level, Level::Failed);
        assert!(line.message.contains("line 3"));
        let config = Config {
            unknown: Some("carpeld is not installed".into()),
            ..Config::default()
        };
        assert_eq!(judge(&config, &[])[0].level, Level::Warning);
    }

    #[test]
    fn images_want_a_disk_and_sockets_memory() {
        assert_eq!(level(disk("paths.root", Filesystem::Disk)), Level::Ok);
        assert_eq!(
            level(disk("paths.root", Filesystem::Memory)),
            Level::Warning
        );
        assert_eq!(
            level(disk("paths.root", Filesystem::Overlay)),
            Level::Failed
        );
        assert_eq!(
            level(disk("paths.root", Filesystem::Network)),
            Level::Failed
        );
        assert_eq!(level(disk("paths.run", Filesystem::Memory)), Level::Ok);
        assert_eq!(level(disk("paths.run", Filesystem::Disk)), Level::Warning);
    }

    #[test]
    fn want_of_room_types_or_leave_is_told() {
        let with = |change: fn(&mut Disk)| {
            let mut disk = disk("paths.root", Filesystem::Disk);
            change(&mut disk);
            level(disk)
        };
        assert_eq!(with(|disk| disk.bytes_free = 90), Level::Warning);
        assert_eq!(with(|disk| disk.inodes_free = 1), Level::Failed);
        assert_eq!(
            with(|disk| (disk.inodes, disk.inodes_free) = (0, 0)),
            Level::Ok
        );
        assert_eq!(with(|disk| disk.entry_types = Some(false)), Level::Failed);
        assert_eq!(with(|disk| disk.entry_types = None), Level::Ok);
        assert_eq!(with(|disk| disk.read_only = true), Level::Failed);
        assert_eq!(
            with(|disk| disk.unreadable = Some("no".into())),
            Level::Failed
        );
    }
}
