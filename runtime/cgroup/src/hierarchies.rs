//! Which cgroups this host has, and where.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::change::Change;
use crate::error::{Error, Result};
use crate::files;
use crate::group::Cgroup;
use crate::join::{self, Moves};
use crate::limits::Limits;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    V1,
    V2,
}

/// What a new group is for: decides which v1 hierarchies it is made in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// A container: its limits, and the statistics that are reported.
    Container,
    /// A process of ours, accounted to its pod.
    Holder,
    /// A pod of ours: only what its limits need.
    Pod,
}

/// Controllers that are joined for a container even without a limit: they carry
/// statistics, or (devices) the default denial.
const ALWAYS: [&str; 4] = ["pids", "memory", "cpuacct", "devices"];

/// Controllers that everything of ours is in: there the processes of a group are all
/// found, those of the groups below it too.
const EVERYWHERE: [&str; 2] = ["pids", "memory"];

/// The cgroup mounts of this host.
#[derive(Debug, Clone)]
pub struct Hierarchies {
    layout: Layout,
}

#[derive(Debug, Clone)]
enum Layout {
    /// Controller name and where its hierarchy is mounted.
    V1(Vec<(String, PathBuf)>),
    V2(PathBuf),
}

impl Hierarchies {
    /// Looks at `/proc/self/mountinfo`: v2 where it is the only tree or has the
    /// memory controller, v1 otherwise.
    pub fn detect() -> Result<Self> {
        let table = Path::new("/proc/self/mountinfo");
        let text = files::read(table)?;
        let mounts = parse_mounts(&text);
        let unified = mounts.iter().find(|mount| mount.kind == "cgroup2");
        if let Some(unified) = unified {
            let controllers = files::read_if_there(&unified.point.join("cgroup.controllers"))?;
            let has_memory =
                controllers.is_some_and(|text| text.split_whitespace().any(|c| c == "memory"));
            if has_memory || !mounts.iter().any(|mount| mount.kind == "cgroup") {
                return Ok(Self {
                    layout: Layout::V2(unified.point.clone()),
                });
            }
        }
        let v1: Vec<_> = mounts
            .into_iter()
            .filter(|mount| mount.kind == "cgroup")
            .flat_map(|mount| {
                let point = mount.point;
                mount
                    .controllers
                    .into_iter()
                    .map(move |name| (name, point.clone()))
            })
            .collect();
        if v1.is_empty() {
            return Err(Error::Invalid {
                what: "mounts".into(),
                why: "no cgroup filesystem is mounted".into(),
            });
        }
        Ok(Self {
            layout: Layout::V1(v1),
        })
    }

    pub fn version(&self) -> Version {
        match self.layout {
            Layout::V1(_) => Version::V1,
            Layout::V2(_) => Version::V2,
        }
    }

    /// Makes the group, its missing parents too, and sets its limits.
    pub fn create(&self, path: &str, purpose: Use, limits: &Limits) -> Result<Cgroup> {
        let relative = check(path)?;
        let group = match &self.layout {
            Layout::V1(all) => {
                let mut wanted = wanted(purpose, limits);
                if purpose == Use::Container {
                    wanted.extend(limited_above(all, relative, &wanted));
                }
                let mut dirs = Vec::new();
                for name in wanted {
                    match all.iter().find(|(have, _)| *have == name) {
                        Some((name, root)) => dirs.push((name.clone(), root.join(relative))),
                        None => limits.missing(name)?,
                    }
                }
                Cgroup::v1(one_dir_a_hierarchy(dirs))
            }
            Layout::V2(root) => Cgroup::v2(root.clone(), relative),
        };
        group.make()?;
        group.apply(limits)?;
        Ok(group)
    }

    /// Changes the limits that are asked for of a group that exists, whatever runs in
    /// it; the others stay as they are. All hold when this returns, or none was changed.
    pub fn update(&self, path: &str, limits: &Limits) -> Result<()> {
        let group = self.open(path)?;
        let all = match &self.layout {
            Layout::V1(all) => all,
            Layout::V2(_) => return group.apply(limits),
        };
        let reference = group.first_dir().ok_or_else(|| Error::Invalid {
            what: format!("path {path:?}"),
            why: "does not exist".into(),
        })?;
        let relative = check(path)?;
        let mut joining = Vec::new();
        for name in limits.controllers() {
            match all.iter().find(|(have, _)| *have == name) {
                Some((name, root)) => joining.push(Joining {
                    controller: name,
                    root,
                    dir: root.join(relative),
                    made: !root.join(relative).is_dir(),
                }),
                None => limits.missing(name)?,
            }
        }
        let mut moves = Moves::default();
        let changed = self.change(path, &reference, &joining, limits, &mut moves);
        if changed.is_err() {
            moves.undo();
            for new in joining.iter().filter(|joining| joining.made) {
                // With a process in it, it must stay; the group's removal takes it.
                drop(std::fs::remove_dir(&new.dir));
            }
        }
        changed
    }

    fn change(
        &self,
        path: &str,
        reference: &Path,
        joining: &[Joining<'_>],
        limits: &Limits,
        moves: &mut Moves,
    ) -> Result<()> {
        let new = joining.iter().filter(|joining| joining.made);
        let new = new.map(|joining| (joining.controller.to_owned(), joining.dir.clone()));
        Cgroup::v1(one_dir_a_hierarchy(new.collect())).make()?;
        let group = self.open(path)?;
        let mut change = Change::default();
        change.write(&group.settings(limits)?)?;
        for joining in joining {
            let Joining {
                controller,
                root,
                dir,
                ..
            } = joining;
            moves
                .follow(reference, dir, controller, root)
                .map_err(|error| change.fail(error))?;
        }
        Ok(())
    }

    /// Makes a group of its own for one more process of an existing container. Under
    /// v1 it is apart in one hierarchy only, which is enough to find and kill it.
    pub fn create_inside(&self, parent: &str, name: &str) -> Result<Cgroup> {
        let parent = self.open(parent)?;
        let child = parent.child(name)?;
        child.make()?;
        Ok(child)
    }

    /// The group as far as it exists; one that does not has no processes.
    pub fn open(&self, path: &str) -> Result<Cgroup> {
        let relative = check(path)?;
        Ok(match &self.layout {
            Layout::V1(all) => {
                let dirs = all
                    .iter()
                    .map(|(name, root)| (name.clone(), root.join(relative)));
                let mut dirs: Vec<_> = dirs.filter(|(_, dir)| dir.is_dir()).collect();
                dirs.sort_by_key(|(name, _)| {
                    let place = EVERYWHERE.iter().position(|own| own == name);
                    place.unwrap_or(EVERYWHERE.len())
                });
                Cgroup::v1(one_dir_a_hierarchy(dirs))
            }
            Layout::V2(root) => Cgroup::v2(root.clone(), relative),
        })
    }

    /// Names of the groups in `path`, over all hierarchies.
    pub fn children(&self, path: &str) -> Result<Vec<String>> {
        let relative = check(path)?;
        let roots: Vec<&PathBuf> = match &self.layout {
            Layout::V1(all) => all.iter().map(|(_, root)| root).collect(),
            Layout::V2(root) => vec![root],
        };
        let mut names = Vec::new();
        for root in roots {
            let dir = root.join(relative);
            let entries = match fs::read_dir(&dir) {
                Ok(entries) => entries,
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(Error::io("list", &dir)(error)),
            };
            for entry in entries.flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir())
                    && let Ok(name) = entry.file_name().into_string()
                    && !names.contains(&name)
                {
                    names.push(name);
                }
            }
        }
        Ok(names)
    }
}

/// A hierarchy that a group gets a limit in.
struct Joining<'a> {
    controller: &'a str,
    root: &'a Path,
    dir: PathBuf,
    /// The group was not there before.
    made: bool,
}

/// Hierarchies in which the group above has limits that its containers must be in.
fn limited_above(
    all: &[(String, PathBuf)],
    relative: &str,
    wanted: &[&'static str],
) -> Vec<&'static str> {
    let Some((above, _)) = relative.rsplit_once('/') else {
        return Vec::new();
    };
    let limited = |name: &str| {
        all.iter()
            .find(|(have, _)| have == name)
            .is_some_and(|(_, root)| join::is_limited(&root.join(above), name))
    };
    ["cpu", "cpuset", "hugetlb"]
        .into_iter()
        .filter(|name| !wanted.contains(name) && limited(name))
        .collect()
}

/// `cpu` and `cpuacct` are often one hierarchy: one directory, not two.
fn one_dir_a_hierarchy(dirs: Vec<(String, PathBuf)>) -> Vec<(Vec<String>, PathBuf)> {
    let mut joined: Vec<(Vec<String>, PathBuf)> = Vec::new();
    for (name, dir) in dirs {
        match joined.iter_mut().find(|(_, have)| *have == dir) {
            Some((names, _)) => names.push(name),
            None => joined.push((vec![name], dir)),
        }
    }
    joined
}

fn wanted(purpose: Use, limits: &Limits) -> Vec<&'static str> {
    match purpose {
        Use::Holder => EVERYWHERE.to_vec(),
        Use::Pod => {
            let mut names = EVERYWHERE.to_vec();
            names.extend(
                limits
                    .controllers()
                    .filter(|name| !EVERYWHERE.contains(name)),
            );
            names
        }
        Use::Container => {
            let mut names = ALWAYS.to_vec();
            names.extend(limits.controllers().filter(|name| !ALWAYS.contains(name)));
            names
        }
    }
}

/// An absolute path below the root, as a relative one.
fn check(path: &str) -> Result<&str> {
    let invalid = |why: &str| Error::Invalid {
        what: format!("path {path:?}"),
        why: why.into(),
    };
    let relative = path
        .strip_prefix('/')
        .ok_or_else(|| invalid("is not absolute"))?;
    if relative.trim_matches('/').is_empty() {
        return Err(invalid("is the root"));
    }
    if relative.split('/').any(|part| part == ".." || part == ".") {
        return Err(invalid("has a relative part"));
    }
    if relative.contains(['\0', '\n']) {
        return Err(invalid("has a control character"));
    }
    Ok(relative.trim_end_matches('/'))
}

struct Mount {
    kind: String,
    point: PathBuf,
    controllers: Vec<String>,
}

/// Lines of proc(5) mountinfo that are cgroups. Named v1 hierarchies (systemd) have
/// no controllers and are left alone.
fn parse_mounts(text: &str) -> Vec<Mount> {
    let mut mounts = Vec::new();
    for line in text.lines() {
        let Some((left, right)) = line.split_once(" - ") else {
            continue;
        };
        let (Some(root), Some(point)) = (left.split(' ').nth(3), left.split(' ').nth(4)) else {
            continue;
        };
        let mut right = right.split(' ');
        let (Some(kind), _, Some(options)) = (right.next(), right.next(), right.next()) else {
            continue;
        };
        // A bind mount of a part of a hierarchy is not the hierarchy.
        if !kind.starts_with("cgroup") || root != "/" && !root.starts_with("/..") {
            continue;
        }
        let known = [
            "rw",
            "ro",
            "xattr",
            "clone_children",
            "noprefix",
            "favordynmods",
        ];
        let controllers = options
            .split(',')
            .filter(|option| !known.contains(option) && !option.contains('='))
            .map(str::to_owned)
            .collect();
        mounts.push(Mount {
            kind: kind.into(),
            point: point.into(),
            controllers,
        });
    }
    mounts
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::{Hierarchies, Layout, Use, check, parse_mounts, wanted};
    use crate::error::Error;
    use crate::limits::Limits;

    /// Plain files in place of the kernel's, which take any value.
    struct Tree(PathBuf);

    impl Tree {
        fn new(name: &str, files: &[(&str, &str)]) -> Self {
            let name = format!("carpel-hierarchies-{name}-{}", std::process::id());
            let tree = Self(std::env::temp_dir().join(name));
            for (file, text) in files {
                let path = tree.0.join(file);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            tree
        }

        fn v2(&self) -> Hierarchies {
            Hierarchies {
                layout: Layout::V2(self.0.clone()),
            }
        }

        fn text(&self, file: &str) -> String {
            fs::read_to_string(self.0.join(file)).unwrap()
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.0));
        }
    }

    #[test]
    fn on_v2_an_update_is_whole_or_nothing() {
        let old = [
            ("pod/c/cpu.max", "10000 50000"),
            ("pod/c/memory.current", "4096"),
            ("pod/c/memory.max", "900000"),
            ("pod/c/memory.swap.max", "000000"),
            ("pod/c/memory.high", "700000"),
        ];
        let tree = Tree::new("update", &old);
        let mut limits = Limits {
            cpu_quota: 20_000,
            memory: 800_000,
            memory_swap: 900_000,
            unified: [("memory.zzz".to_owned(), "1".to_owned())].into(),
            ..Limits::default()
        };
        let error = tree.v2().update("/pod/c", &limits).unwrap_err();
        assert!(matches!(error, Error::NoController(_)), "{error}");
        assert!(error.to_string().contains("memory.zzz"), "{error}");
        for (file, text) in old {
            assert_eq!(tree.text(file), text, "{file}");
        }
        limits.unified = [("memory.high".to_owned(), "600000".to_owned())].into();
        tree.v2().update("/pod/c", &limits).unwrap();
        let new = [
            ("cpu.max", "20000 50000"),
            ("memory.max", "800000"),
            ("memory.swap.max", "100000"),
            ("memory.high", "600000"),
        ];
        for (file, text) in new {
            assert_eq!(tree.text(&format!("pod/c/{file}")), text, "{file}");
        }
    }

    #[test]
    fn on_v2_nobody_is_killed_for_a_limit() {
        let files = [
            ("c/cpu.weight", "100"),
            ("c/memory.current", "5000000"),
            ("c/memory.max", "9000000"),
            ("c/memory.reclaim", ""),
        ];
        let tree = Tree::new("in-use", &files);
        let limits = Limits {
            cpu_shares: 1024,
            memory: 1_000_000,
            ..Limits::default()
        };
        let error = tree.v2().update("/c", &limits).unwrap_err();
        assert!(matches!(error, Error::InUse { .. }), "{error}");
        // It was tried to make room.
        assert_eq!(tree.text("c/memory.reclaim"), "4000000");
        assert_eq!(tree.text("c/memory.max"), "9000000");
        assert_eq!(tree.text("c/cpu.weight"), "100");
    }

    #[test]
    fn in_what_is_systemds_no_controllers_are_enabled() {
        let files = [
            ("cgroup.controllers", "cpu"),
            ("cgroup.subtree_control", "none"),
            ("a.slice/cgroup.controllers", "cpu"),
            ("a.slice/cgroup.subtree_control", "none"),
            ("a.slice/b.scope/cgroup.controllers", "cpu"),
            ("a.slice/b.scope/cgroup.subtree_control", ""),
        ];
        let tree = Tree::new("scope", &files);
        let group = tree
            .v2()
            .create("/a.slice/b.scope/pod", Use::Pod, &Limits::default());
        group.unwrap();
        assert_eq!(tree.text("cgroup.subtree_control"), "none");
        assert_eq!(tree.text("a.slice/cgroup.subtree_control"), "none");
        assert_eq!(tree.text("a.slice/b.scope/cgroup.subtree_control"), "+cpu");
    }

    #[test]
    fn mounts_are_read_with_their_controllers() {
        let text = "30 25 0:26 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid - cgroup cgroup rw,cpu,cpuacct\n\
                    31 25 0:27 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
                    32 25 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
                    33 25 0:29 /docker/x /mnt/part rw - cgroup cgroup rw,memory\n\
                    34 25 0:30 / / rw - ext4 /dev/vda rw\n";
        let mounts = parse_mounts(text);
        let seen: Vec<_> = mounts
            .iter()
            .map(|m| (m.kind.as_str(), m.controllers.join(",")))
            .collect();
        assert_eq!(
            seen,
            [
                ("cgroup", "cpu,cpuacct".to_owned()),
                ("cgroup", String::new()),
                ("cgroup2", String::new())
            ]
        );
    }

    #[test]
    fn only_what_carries_a_limit_or_a_statistic_is_joined() {
        let plain = wanted(Use::Container, &Limits::default());
        assert_eq!(plain, ["pids", "memory", "cpuacct", "devices"]);
        let limits = Limits {
            cpu_shares: 2,
            cpuset_cpus: "0".into(),
            ..Limits::default()
        };
        let all = wanted(Use::Container, &limits);
        assert!(all.contains(&"cpu") && all.contains(&"cpuset") && !all.contains(&"hugetlb"));
    }

    #[test]
    fn a_path_that_leads_elsewhere_is_refused() {
        assert_eq!(check("/a/b/").unwrap(), "a/b");
        for bad in ["", "/", "a", "/a/../b", "/a/./b", "/a\nb", "//"] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
    }
}
