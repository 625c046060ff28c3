//! Making a container, and letting it start.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use oci_spec::runtime::Spec;

use crate::bundle::{self, Bundle, LIMIT, ROOTFS};
use crate::error::{Error, Result};
use crate::{Create, Place, cgroups, config, oom};

/// A container's first process, which waits for the word to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CreatedProcess {
    pub pid: i32,
    /// The kernel does not let us lower oom_score_adj; it is what it was.
    pub oom_score_adj_refused: bool,
}

/// Makes a container whose first process waits for [`start`].
///
/// The caller is a single-threaded process made for this and has to end soon after.
pub fn create(request: Create) -> Result<CreatedProcess> {
    let Create {
        place,
        id,
        mut spec,
        rootfs,
        mounts,
        stdio,
        oom_score_adj,
    } = request;
    let mounts = with_own(&spec, mounts)?;
    let bundle = Bundle::enter(&place)?;
    let rootfs = bundle.attach(rootfs.as_fd(), ROOTFS)?;
    let mut sources = BTreeMap::new();
    for (index, mount) in &mounts {
        let name = format!("mount-{index}");
        sources.insert(*index, bundle.attach(mount.as_fd(), &name)?);
    }
    if let Some(cgroup) = cgroup_of(&spec) {
        cgroups::hide_others(&cgroup)?;
    }
    config::adapt(&mut spec, &rootfs, &sources);
    let text = serde_json::to_vec(&spec)
        .map_err(|error| Error::Invalid(format!("the container's configuration: {error}")))?;
    bundle.write("config.json", &text)?;
    let oom_score_adj_refused = match oom_score_adj {
        Some(value) => oom::set_own(value)?,
        None => false,
    };
    let mut command = bundle.command(&place, "create")?;
    command
        .arg("--bundle")
        .arg(bundle.path())
        .arg("--pid-file")
        .arg(bundle.pid_file())
        .arg(&id)
        .streams(stdio);
    command.run(LIMIT)?;
    Ok(CreatedProcess {
        pid: bundle.pid()?,
        oom_score_adj_refused,
    })
}

/// Lets the container's program run. The caller is as that of [`create`].
pub fn start(place: &Place, id: &str) -> Result<()> {
    let bundle = Bundle::enter(place)?;
    let mut command = bundle.command(place, "start")?;
    command.quietly()?.arg(id);
    command.run(LIMIT).map(drop)
}

/// The mounts passed, and those of paths of this process's own tree.
fn with_own(spec: &Spec, mut passed: Vec<(usize, OwnedFd)>) -> Result<Vec<(usize, OwnedFd)>> {
    let all = spec.mounts().as_deref().unwrap_or_default();
    if let Some((index, _)) = passed.iter().find(|(index, _)| *index >= all.len()) {
        let what = format!("a descriptor for mount {index} of {}", all.len());
        return Err(Error::Invalid(what));
    }
    for (index, mount) in all.iter().enumerate() {
        let is_bind = mount.typ().as_deref() == Some("bind");
        if let Some(source) = mount.source()
            && is_bind
            && !passed.iter().any(|(of, _)| *of == index)
        {
            passed.push((index, bundle::take_along(source)?));
        }
    }
    Ok(passed)
}

fn cgroup_of(spec: &Spec) -> Option<PathBuf> {
    spec.linux().as_ref()?.cgroups_path().clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_needs_its_mount() {
        let fd = || OwnedFd::from(std::fs::File::open("/").unwrap());
        let mut spec = Spec::default();
        spec.set_mounts(Some(Vec::new()));
        let error = with_own(&spec, vec![(0, fd())]).unwrap_err();
        assert!(error.to_string().contains("mount 0 of 0"), "{error}");
    }
}
