//! One cgroup: made, limited, killed, removed.

use std::fs;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use carpel_sys::pidfd;
use rustix::fs::{Mode, OFlags};

use crate::change::Change;
use crate::devices;
use crate::error::{Error, Result};
use crate::files;
use crate::limits::Limits;
use crate::oom;
use crate::plan::{self, Setting};
use crate::stats::{self, Hugepages, Stats};

const SIGKILL: i32 = 9;
/// Rounds of killing what appeared since the last one: ten seconds, for on a machine
/// that has too much to do even a killed process waits for its turn to end.
const KILL_TRIES: u32 = 5000;
/// A killed process leaves its group when it has ended, which takes a moment.
const REMOVE_TRIES: u32 = 5000;
const PAUSE: Duration = Duration::from_millis(2);

/// A group in one hierarchy or several. It need not exist (any more): then it has no
/// processes, and removing it does nothing.
#[derive(Debug)]
pub struct Cgroup {
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    V1 {
        /// Controllers and directory in each joined hierarchy; the first decides
        /// which processes belong to the group.
        dirs: Vec<(Vec<String>, PathBuf)>,
        /// Hierarchies in which the group is its parent's.
        shared: Vec<PathBuf>,
    },
    V2 {
        root: PathBuf,
        relative: String,
    },
}

impl Cgroup {
    pub(crate) fn v1(dirs: Vec<(Vec<String>, PathBuf)>) -> Self {
        Self {
            kind: Kind::V1 {
                dirs,
                shared: Vec::new(),
            },
        }
    }

    pub(crate) fn v2(root: PathBuf, relative: &str) -> Self {
        Self {
            kind: Kind::V2 {
                root,
                relative: relative.to_owned(),
            },
        }
    }

    /// Directories that are this group's own.
    fn dirs(&self) -> Vec<PathBuf> {
        match &self.kind {
            Kind::V1 { dirs, .. } => dirs.iter().map(|(_, dir)| dir.clone()).collect(),
            Kind::V2 { root, relative } => vec![root.join(relative)],
        }
    }

    /// The directory whose processes are the group's.
    pub(crate) fn first_dir(&self) -> Option<PathBuf> {
        self.dirs().into_iter().next()
    }

    pub(crate) fn child(&self, name: &str) -> Result<Self> {
        if name.is_empty() || name.contains(['/', '\0', '\n']) || name.starts_with('.') {
            let (what, why) = (format!("name {name:?}"), "is no file name".into());
            return Err(Error::Invalid { what, why });
        }
        Ok(Self {
            kind: match &self.kind {
                Kind::V2 { root, relative } => Kind::V2 {
                    root: root.clone(),
                    relative: format!("{relative}/{name}"),
                },
                Kind::V1 { dirs, .. } => {
                    let mut dirs = dirs.iter();
                    let own = dirs
                        .next()
                        .map(|(names, dir)| (names.clone(), dir.join(name)));
                    Kind::V1 {
                        dirs: own.into_iter().collect(),
                        shared: dirs.map(|(_, dir)| dir.clone()).collect(),
                    }
                }
            },
        })
    }

    pub(crate) fn make(&self) -> Result<()> {
        if let Kind::V2 { root, relative } = &self.kind {
            enable_controllers(root, relative)?;
        }
        for dir in self.dirs() {
            fs::create_dir_all(&dir).map_err(Error::io("create", &dir))?;
        }
        if let Kind::V1 { dirs, .. } = &self.kind
            && let Some((_, dir)) = dirs.iter().find(|(names, _)| has(names, "cpuset"))
        {
            inherit_cpuset(dir)?;
        }
        if let Kind::V1 { dirs, .. } = &self.kind
            && let Some((_, dir)) = dirs.iter().find(|(names, _)| has(names, "memory"))
        {
            // Before Linux 5.11 a group does not count those below it unless told to,
            // before there are any.
            drop(files::try_write(&dir.join("memory.use_hierarchy"), "1"));
        }
        Ok(())
    }

    /// Sets the limits that are asked for; the others stay as they are. All hold when
    /// this returns, or none of them was changed.
    pub fn apply(&self, limits: &Limits) -> Result<()> {
        let mut change = Change::default();
        change.write(&self.settings(limits)?)?;
        self.apply_devices(limits)
            .map_err(|error| change.fail(error))
    }

    /// The writes that these limits take, each with its file.
    pub(crate) fn settings(&self, limits: &Limits) -> Result<Vec<(PathBuf, Setting)>> {
        let now = |file: &str| {
            let path = self.file(file)?;
            files::read_if_there(&path).ok().flatten()
        };
        let plan = match &self.kind {
            Kind::V1 { .. } => plan::v1(limits, &now),
            Kind::V2 { .. } => {
                self.make_room(limits.memory)?;
                plan::v2(limits, &now)
            }
        };
        let mut settings = Vec::new();
        for setting in plan {
            match self.file(&setting.file) {
                Some(path) => settings.push((path, setting)),
                None if setting.may_lack => {}
                None => return Err(Error::NoController(setting.controller)),
            }
        }
        Ok(settings)
    }

    /// Where a file of the group is; under v1 by the controller that it begins with.
    fn file(&self, name: &str) -> Option<PathBuf> {
        let controller = name.split('.').next().unwrap_or_default();
        match &self.kind {
            Kind::V1 { dirs, .. } => dirs
                .iter()
                .find(|(names, _)| has(names, controller))
                .map(|(_, dir)| dir.join(name)),
            Kind::V2 { root, relative } => Some(root.join(relative).join(name)),
        }
    }

    /// v2 kills for a limit below what is used; v1 refuses it, and so do we.
    fn make_room(&self, limit: i64) -> Result<()> {
        let usage = || -> Result<u64> {
            let Some(path) = self.file("memory.current") else {
                return Ok(0);
            };
            let text = files::read_if_there(&path)?.unwrap_or_default();
            Ok(text.trim().parse().unwrap_or(0))
        };
        let Some(bytes) = plan::excess(usage()?, limit) else {
            return Ok(());
        };
        if let Some(path) = self.file("memory.reclaim") {
            // Linux 5.19; an error says that not all of it could be had.
            drop(files::try_write(&path, &bytes.to_string()));
        }
        let usage = usage()?;
        match plan::excess(usage, limit) {
            None => Ok(()),
            Some(_) => Err(Error::InUse { limit, usage }),
        }
    }

    fn apply_devices(&self, limits: &Limits) -> Result<()> {
        let Some(rules) = &limits.devices else {
            return Ok(());
        };
        match &self.kind {
            Kind::V1 { dirs, .. } => match dirs.iter().find(|(names, _)| has(names, "devices")) {
                Some((_, dir)) => devices::apply_v1(dir, rules),
                None => Ok(()),
            },
            Kind::V2 { root, relative } => devices::apply_v2(&root.join(relative), rules),
        }
    }

    /// `cgroup.procs` of each hierarchy, for reading and writing. What the first one
    /// lists belongs to this group alone.
    pub fn procs(&self) -> Result<Vec<OwnedFd>> {
        let mut dirs = self.dirs();
        if let Kind::V1 { shared, .. } = &self.kind {
            dirs.extend(shared.iter().cloned());
        }
        dirs.iter()
            .map(|dir| open(&dir.join("cgroup.procs"), OFlags::RDWR))
            .collect()
    }

    /// Moves a process into the group.
    pub fn enter(&self, pid: i32) -> Result<()> {
        for dir in self.dirs() {
            files::write(&dir.join("cgroup.procs"), &pid.to_string())?;
        }
        Ok(())
    }

    /// Controllers of the v1 hierarchy whose list belongs to this group alone.
    pub fn controllers(&self) -> &[String] {
        match &self.kind {
            Kind::V1 { dirs, .. } => dirs.first().map_or(&[], |(names, _)| names),
            Kind::V2 { .. } => &[],
        }
    }

    /// The v2 directory, for CLONE_INTO_CGROUP.
    pub fn dir(&self) -> Result<Option<OwnedFd>> {
        match &self.kind {
            Kind::V1 { .. } => Ok(None),
            Kind::V2 { root, relative } => {
                open(&root.join(relative), OFlags::RDONLY | OFlags::DIRECTORY).map(Some)
            }
        }
    }

    /// v2 `cgroup.kill` (Linux 5.14), for writing.
    pub fn kill_file(&self) -> Result<Option<OwnedFd>> {
        let Kind::V2 { root, relative } = &self.kind else {
            return Ok(None);
        };
        let path = root.join(relative).join("cgroup.kill");
        if path.exists() {
            open(&path, OFlags::WRONLY).map(Some)
        } else {
            Ok(None)
        }
    }

    pub fn stats(&self) -> Result<Stats> {
        match &self.kind {
            Kind::V1 { dirs, .. } => stats::v1(dirs),
            Kind::V2 { root, relative } => stats::v2(&root.join(relative)),
        }
    }

    /// Pages of sizes other than the ordinary one; empty where they are not accounted.
    pub fn hugepages(&self) -> Result<Vec<Hugepages>> {
        match &self.kind {
            Kind::V1 { dirs, .. } => stats::v1_hugepages(dirs),
            Kind::V2 { root, relative } => stats::v2_hugepages(&root.join(relative)),
        }
    }

    /// Processes of the group that the kernel killed for want of memory since it was
    /// made, whichever limit it was: this group's, one above it, or the host's memory
    /// (Linux 4.13 for v1).
    pub fn oom_kills(&self) -> Result<u64> {
        match &self.kind {
            Kind::V1 { dirs, .. } => match dirs.iter().find(|(names, _)| has(names, "memory")) {
                Some((_, dir)) => oom::v1(dir),
                None => Ok(0),
            },
            Kind::V2 { root, relative } => oom::v2(&root.join(relative)),
        }
    }

    /// Processes of this group and of those below it, also such as are apart in one
    /// hierarchy: each is in that of the pids controller.
    pub fn members(&self) -> Result<Vec<i32>> {
        let counted = match &self.kind {
            Kind::V1 { dirs, .. } => dirs.iter().find(|(names, _)| has(names, "pids")),
            Kind::V2 { .. } => None,
        };
        match counted {
            Some((_, dir)) => processes(dir),
            None => self.pids(),
        }
    }

    /// Processes of this group and of those below it.
    pub fn pids(&self) -> Result<Vec<i32>> {
        // One hierarchy is enough: a process is in the group in all of them.
        self.dirs()
            .first()
            .map_or_else(|| Ok(Vec::new()), |dir| processes(dir))
    }

    /// Kills every process of the group and below it; when this returns none is left
    /// but such as are ending.
    pub fn kill(&self) -> Result<()> {
        let Some(dir) = self.first_dir() else {
            return Ok(());
        };
        if files::try_write(&dir.join("cgroup.kill"), "1").is_ok() {
            return Ok(());
        }
        for _ in 0..KILL_TRIES {
            // 0 is a process of a PID namespace that we do not see.
            let alive = self
                .pids()?
                .into_iter()
                .filter(|pid| *pid > 0 && !is_zombie(*pid));
            let found: Vec<_> = alive.map(|pid| (pid, pidfd::open(pid))).collect();
            if found.is_empty() {
                return Ok(());
            }
            // A number that is listed still was not given to another process between
            // the reading and the opening.
            let still = self.pids()?;
            for (pid, process) in found {
                if let Ok(process) = process
                    && still.contains(&pid)
                {
                    // One that ended in between is what we want.
                    drop(pidfd::signal(process, SIGKILL));
                }
            }
            thread::sleep(PAUSE);
        }
        Err(Error::Busy {
            path: dir,
            tries: KILL_TRIES,
        })
    }

    /// Removes the group and those below it. Its processes must have been killed.
    pub fn remove(&self) -> Result<()> {
        let mut first = None;
        for dir in self.dirs() {
            if let Err(error) = remove_tree(&dir) {
                first.get_or_insert(error);
            }
        }
        first.map_or(Ok(()), Err)
    }
}

fn has(names: &[String], name: &str) -> bool {
    names.iter().any(|have| have == name)
}

fn open(path: &Path, flags: OFlags) -> Result<OwnedFd> {
    rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| Error::io("open", path)(errno.into()))
}

/// Lets the groups from the root to `relative` have every controller there is. A
/// group with processes of its own refuses (v2 rule); then its children go without.
fn enable_controllers(root: &Path, relative: &str) -> Result<()> {
    let mut dir = root.to_owned();
    let parts: Vec<&str> = relative.split('/').collect();
    // Down to a delegated scope the groups are systemd's, which enables what is asked for.
    let ours = parts
        .iter()
        .position(|part| part.ends_with(".scope"))
        .map_or(0, |scope| scope + 1);
    for (depth, part) in parts.iter().enumerate() {
        if depth < ours {
            dir.push(part);
            continue;
        }
        fs::create_dir_all(&dir).map_err(Error::io("create", &dir))?;
        let have = files::read_if_there(&dir.join("cgroup.controllers"))?.unwrap_or_default();
        let on = files::read_if_there(&dir.join("cgroup.subtree_control"))?.unwrap_or_default();
        for name in have
            .split_whitespace()
            .filter(|n| !on.split_whitespace().any(|o| o == *n))
        {
            drop(files::try_write(
                &dir.join("cgroup.subtree_control"),
                &format!("+{name}"),
            ));
        }
        dir.push(part);
    }
    Ok(())
}

/// A new v1 cpuset is empty, and nothing can be put into an empty one.
fn inherit_cpuset(dir: &Path) -> Result<()> {
    let Some(parent) = dir
        .parent()
        .filter(|parent| parent.join("cpuset.cpus").exists())
    else {
        return Ok(());
    };
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if !files::read(&dir.join(file))?.trim().is_empty() {
            continue;
        }
        if files::read(&parent.join(file))?.trim().is_empty() {
            inherit_cpuset(parent)?;
        }
        files::write(&dir.join(file), files::read(&parent.join(file))?.trim())?;
    }
    Ok(())
}

/// The directory and all below it, parents first.
pub(crate) fn tree(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut all = vec![dir.to_owned()];
    let mut next = 0;
    while let Some(dir) = all.get(next).cloned() {
        next += 1;
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(Error::io("list", &dir)(error)),
        };
        let children = entries
            .flatten()
            .filter(|e| e.file_type().is_ok_and(|kind| kind.is_dir()));
        all.extend(children.map(|entry| entry.path()));
    }
    Ok(all)
}

/// Processes of the directory and of all below it.
pub(crate) fn processes(dir: &Path) -> Result<Vec<i32>> {
    let mut pids = Vec::new();
    for dir in tree(dir)? {
        let text = files::read_if_there(&dir.join("cgroup.procs")).unwrap_or_default();
        let text = text.unwrap_or_default();
        pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
    }
    Ok(pids)
}

fn remove_tree(dir: &Path) -> Result<()> {
    for dir in tree(dir)?.iter().rev() {
        for attempt in 0.. {
            match fs::remove_dir(dir) {
                Ok(()) => break,
                Err(error) if error.kind() == ErrorKind::NotFound => break,
                Err(error) if error.kind() == ErrorKind::ResourceBusy && attempt < REMOVE_TRIES => {
                    thread::sleep(PAUSE);
                }
                Err(error) => return Err(Error::io("remove", dir)(error)),
            }
        }
    }
    Ok(())
}

/// Ended, and waiting for its parent only.
fn is_zombie(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    match stat.rsplit_once(") ") {
        Some((_, rest)) => rest.starts_with(['Z', 'X']),
        None => true,
    }
}
