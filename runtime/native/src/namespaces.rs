//! Which namespaces a container makes and which it joins.

use std::path::PathBuf;

use carpel_sys::namespace::{self, Kinds};
use oci_spec::runtime::{Linux, LinuxNamespaceType};

use crate::error::{Context, Error, Result};

/// What is neither made nor joined is the holder's.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Namespaces {
    /// Made by the clone.
    pub(crate) fresh: Kinds,
    pub(crate) joined: Vec<(Kinds, PathBuf)>,
    /// A cgroup namespace is rooted where its maker is, so it is made by the child
    /// once that is in its cgroup.
    pub(crate) cgroup: bool,
}

impl Namespaces {
    pub(crate) fn new(linux: &Linux) -> Result<Self> {
        let mut all = Self {
            fresh: Kinds::MOUNT,
            ..Self::default()
        };
        let mut seen = Kinds::NONE;
        for namespace in linux.namespaces().iter().flatten() {
            let kind = kind(namespace.typ())?;
            if seen.contains(kind) {
                let twice = namespace.typ();
                return Err(Error::Invalid(format!(
                    "{twice:?} namespace is given twice"
                )));
            }
            seen = seen | kind;
            match namespace.path() {
                Some(_) if kind == Kinds::MOUNT => {
                    let what = "joining a mount namespace";
                    return Err(Error::Unsupported(what.to_owned()));
                }
                Some(path) => all.joined.push((kind, path.clone())),
                None if kind == Kinds::CGROUP => all.cgroup = true,
                None => all.fresh = all.fresh | kind,
            }
        }
        Ok(all)
    }

    /// Moves the worker; it ends soon after, and its child is born there.
    pub(crate) fn join(&self) -> Result<()> {
        // All are opened first: joining one must not change where the paths lead.
        let opened: Vec<_> = self
            .joined
            .iter()
            .map(|(kind, path)| {
                let what = || format!("open namespace {}", path.display());
                Ok((*kind, path, namespace::open(path).with(what)?))
            })
            .collect::<Result<_>>()?;
        for (kind, path, fd) in opened {
            namespace::join(fd, kind).with(|| format!("join namespace {}", path.display()))?;
        }
        Ok(())
    }
}

fn kind(typ: LinuxNamespaceType) -> Result<Kinds> {
    match typ {
        LinuxNamespaceType::Mount => Ok(Kinds::MOUNT),
        LinuxNamespaceType::Pid => Ok(Kinds::PID),
        LinuxNamespaceType::Network => Ok(Kinds::NET),
        LinuxNamespaceType::Ipc => Ok(Kinds::IPC),
        LinuxNamespaceType::Uts => Ok(Kinds::UTS),
        LinuxNamespaceType::Cgroup => Ok(Kinds::CGROUP),
        other => Err(Error::Unsupported(format!("{other:?} namespaces"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::LinuxNamespace;

    fn linux(list: &[(LinuxNamespaceType, Option<&str>)]) -> Linux {
        let one = |(typ, path): &(LinuxNamespaceType, Option<&str>)| {
            let mut namespace = LinuxNamespace::default();
            namespace.set_typ(*typ).set_path(path.map(PathBuf::from));
            namespace
        };
        let mut linux = Linux::default();
        linux.set_namespaces(Some(list.iter().map(one).collect()));
        linux
    }

    #[test]
    fn made_joined_and_inherited() {
        let asked = linux(&[
            (LinuxNamespaceType::Mount, None),
            (LinuxNamespaceType::Pid, Some("/proc/7/ns/pid")),
            (LinuxNamespaceType::Uts, None),
            (LinuxNamespaceType::Cgroup, None),
        ]);
        let expected = Namespaces {
            fresh: Kinds::MOUNT | Kinds::UTS,
            joined: vec![(Kinds::PID, "/proc/7/ns/pid".into())],
            cgroup: true,
        };
        assert_eq!(Namespaces::new(&asked).unwrap(), expected);
        let nothing = Namespaces::new(&linux(&[])).unwrap();
        assert_eq!(nothing.fresh, Kinds::MOUNT);
    }

    #[test]
    fn what_is_not_done_is_refused() {
        for (typ, path) in [
            (LinuxNamespaceType::User, None),
            (LinuxNamespaceType::Time, None),
            (LinuxNamespaceType::Mount, Some("/proc/7/ns/mnt")),
        ] {
            let result = Namespaces::new(&linux(&[(typ, path)]));
            assert!(matches!(result, Err(Error::Unsupported(_))), "{typ:?}");
        }
        let twice = linux(&[
            (LinuxNamespaceType::Pid, None),
            (LinuxNamespaceType::Pid, None),
        ]);
        assert!(matches!(Namespaces::new(&twice), Err(Error::Invalid(_))));
    }
}
