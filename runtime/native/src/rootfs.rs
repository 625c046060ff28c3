//! The container's tree: its root file system with all mounts, made the root.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use carpel_sys::mount::{self, Attr, Propagation};
use oci_spec::runtime::{Linux, Spec};
use rustix::fs::CWD;

use crate::cgroup::Hierarchy;
use crate::error::{Context, Error, Result};
use crate::mounts::{self, Tree};
use crate::options::Options;
use crate::{Create, devices, hide, stage};

/// Builds the tree in this process's own mount namespace and makes it the root.
/// Returns the working directory found in it.
pub(crate) fn build(
    request: &Create,
    linux: &Linux,
    cwd: &Path,
    hierarchies: &[Hierarchy],
) -> Result<OwnedFd> {
    let root = request.rootfs.as_fd();
    attach_root(root)?;
    let mut tree = Tree { root, dev: None };
    for (index, mount) in request.spec.mounts().iter().flatten().enumerate() {
        let passed = request.mounts.iter().find(|(of, _)| *of == index);
        tree.add(mount, passed.map(|(_, fd)| fd.as_fd()), hierarchies)?;
    }
    devices::populate(&tree, linux.devices().as_deref().unwrap_or_default())?;
    let cwd = stage::find_cwd(root, cwd, true)?;
    hide::mask(&tree, linux.masked_paths().as_deref().unwrap_or_default())?;
    hide::make_readonly(&tree, linux.readonly_paths().as_deref().unwrap_or_default())?;
    if let Some(dev) = tree.dev.as_ref().filter(|dev| dev.seal) {
        mounts::seal(&dev.mount, false).during("make /dev read-only")?;
    }
    if request
        .spec
        .root()
        .as_ref()
        .and_then(oci_spec::runtime::Root::readonly)
        == Some(true)
    {
        mounts::seal(root, false).during("make the root file system read-only")?;
    }
    rustix::process::fchdir(root).during("enter the root file system")?;
    mount::pivot_to_cwd().during("make the root file system the root")?;
    propagate(root, linux.rootfs_propagation().as_deref())?;
    Ok(cwd)
}

/// Attaches the root file system on top of the holder's root, which stays what
/// absolute paths start from until the pivot.
fn attach_root(root: BorrowedFd<'_>) -> Result<()> {
    let private = Attr::propagation(Propagation::Private);
    mount::set_attr_at(CWD, Path::new("/"), &private, true).during("make all mounts private")?;
    mount::set_attr(root, &private, true).during("make the root file system private")?;
    mount::attach_at(root, CWD, "/").during("attach the root file system")
}

/// Applies to the root alone: every mount below has been told its own.
fn propagate(root: BorrowedFd<'_>, wanted: Option<&str>) -> Result<()> {
    let Some(name) = wanted.filter(|name| !name.is_empty()) else {
        return Ok(());
    };
    match Options::new(&[name]).attr.propagation {
        Some(propagation) => mount::set_attr(root, &Attr::propagation(propagation), false)
            .with(|| format!("make the root {name}")),
        None => Err(Error::Invalid(format!("rootfsPropagation {name:?}"))),
    }
}

/// Refuses parts of a configuration that would otherwise be left out in silence.
pub(crate) fn refuse_unsupported(spec: &Spec, linux: &Linux) -> Result<()> {
    let mapped = |mount: &oci_spec::runtime::Mount| {
        mount.uid_mappings().is_some() || mount.gid_mappings().is_some()
    };
    let filled = |map: &Option<Vec<_>>| map.as_ref().is_some_and(|map| !map.is_empty());
    let asked = [
        ("hooks", spec.hooks().is_some()),
        ("linux.uidMappings", filled(linux.uid_mappings())),
        ("linux.gidMappings", filled(linux.gid_mappings())),
        ("linux.intelRdt", linux.intel_rdt().is_some()),
        ("linux.personality", linux.personality().is_some()),
        ("linux.memoryPolicy", linux.memory_policy().is_some()),
        (
            "linux.netDevices",
            linux
                .net_devices()
                .as_ref()
                .is_some_and(|map| !map.is_empty()),
        ),
        (
            "mounts.uidMappings",
            spec.mounts().iter().flatten().any(mapped),
        ),
    ];
    match asked.iter().find(|(_, asked)| *asked) {
        Some((name, _)) => Err(Error::Unsupported((*name).to_owned())),
        None => Ok(()),
    }
}
