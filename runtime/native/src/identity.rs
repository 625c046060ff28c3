//! Who a process is and what it may do.

use std::os::fd::{AsFd, OwnedFd};

use carpel_sys::capability::{self, Set, Sets};
use carpel_sys::{credentials, seccomp};
use oci_spec::runtime::{Capabilities, LinuxCapabilities, PosixRlimitType, Process};
use rustix::process::Resource;

use crate::error::{Context, Error, Result};
use crate::{Stdio, devices};

const DEFAULT_UMASK: u32 = 0o022;

/// Everything that is given up between the first step of a process and its program.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    gid: u32,
    groups: Vec<u32>,
    umask: u32,
    bounding: Set,
    sets: Sets,
    ambient: Set,
    no_new_privileges: bool,
    limits: Vec<(PosixRlimitType, u64, u64)>,
}

impl Identity {
    pub(crate) fn new(process: &Process) -> Result<Self> {
        let user = process.user();
        let groups = user.additional_gids().clone().unwrap_or_default();
        let ids = [user.uid(), user.gid()];
        if ids.iter().chain(&groups).any(|id| *id == u32::MAX) {
            return Err(Error::Invalid(format!("{} is no user or group", u32::MAX)));
        }
        let wanted = process.capabilities().as_ref();
        let set = |pick: fn(&LinuxCapabilities) -> &Option<Capabilities>| {
            named(wanted.and_then(|all| pick(all).as_ref()))
        };
        let limits = process.rlimits().iter().flatten();
        Ok(Self {
            uid: user.uid(),
            gid: user.gid(),
            groups,
            umask: user.umask().unwrap_or(DEFAULT_UMASK),
            bounding: set(LinuxCapabilities::bounding),
            sets: Sets {
                effective: set(LinuxCapabilities::effective),
                permitted: set(LinuxCapabilities::permitted),
                inheritable: set(LinuxCapabilities::inheritable),
            },
            ambient: set(LinuxCapabilities::ambient),
            no_new_privileges: process.no_new_privileges().unwrap_or(false),
            limits: limits
                .map(|limit| (limit.typ(), limit.soft(), limit.hard()))
                .collect(),
        })
    }

    /// Lets the user reopen its own output, as `/dev/stdout` does: the pipes are
    /// the holder's.
    pub(crate) fn own_stdio(&self, stdio: &Stdio) {
        if self.uid == 0 {
            return;
        }
        for fd in [&stdio.stdin, &stdio.stdout, &stdio.stderr] {
            let null = devices::is_null(fd.as_fd()).unwrap_or(false);
            if !null {
                let uid = Some(rustix::fs::Uid::from_raw_unchecked(self.uid));
                // A file that cannot be given away is still open.
                rustix::fs::fchown(fd, uid, None).ok();
            }
        }
    }

    pub(crate) fn limit(&self) -> Result<()> {
        for (kind, soft, hard) in &self.limits {
            credentials::set_limit(resource(*kind), *soft, *hard)
                .with(|| format!("set limit {kind} to {soft} (hard {hard})"))?;
        }
        Ok(())
    }

    /// The last step of setting up. Without no_new_privs the filter needs
    /// CAP_SYS_ADMIN, so it comes before the capabilities go, and then applies to
    /// the few calls that are left.
    pub(crate) fn assume(&self, filter: Option<&[u8]>) -> Result<()> {
        capability::bound_to(self.bounding).during("reduce the bounding set")?;
        credentials::set_keep_capabilities(true).during("keep capabilities")?;
        credentials::set_groups(&self.groups).with(|| format!("set groups {:?}", self.groups))?;
        credentials::set_gid(self.gid).with(|| format!("set group {}", self.gid))?;
        credentials::set_uid(self.uid).with(|| format!("set user {}", self.uid))?;
        credentials::set_umask(self.umask);
        let held = capability::held().during("read capabilities")?;
        if let (Some(filter), false) = (filter, self.no_new_privileges) {
            // The change of user took them out of the effective set.
            capability::set(Sets {
                effective: held.permitted,
                ..held
            })
            .during("raise capabilities")?;
            seccomp::load(filter).during("load the seccomp filter")?;
        }
        let sets = cut(self.sets, held.permitted);
        capability::set(sets).during("set capabilities")?;
        capability::set_ambient(self.ambient & sets.permitted & sets.inheritable)
            .during("set ambient capabilities")?;
        if self.no_new_privileges {
            credentials::set_no_new_privileges().during("set no_new_privs")?;
            if let Some(filter) = filter {
                seccomp::load(filter).during("load the seccomp filter")?;
            }
        }
        Ok(())
    }
}

/// Nobody can be given what we do not have ourselves.
fn cut(wanted: Sets, held: Set) -> Sets {
    let permitted = wanted.permitted & held;
    Sets {
        effective: wanted.effective & permitted,
        permitted,
        inheritable: wanted.inheritable & held,
    }
}

fn named(capabilities: Option<&Capabilities>) -> Set {
    let names = capabilities.into_iter().flatten().map(|capability| {
        let name = capability.to_string();
        if name.starts_with("CAP_") {
            name
        } else {
            format!("CAP_{name}")
        }
    });
    Set::named(names)
}

fn resource(kind: PosixRlimitType) -> Resource {
    match kind {
        PosixRlimitType::RlimitCpu => Resource::Cpu,
        PosixRlimitType::RlimitFsize => Resource::Fsize,
        PosixRlimitType::RlimitData => Resource::Data,
        PosixRlimitType::RlimitStack => Resource::Stack,
        PosixRlimitType::RlimitCore => Resource::Core,
        PosixRlimitType::RlimitRss => Resource::Rss,
        PosixRlimitType::RlimitNproc => Resource::Nproc,
        PosixRlimitType::RlimitNofile => Resource::Nofile,
        PosixRlimitType::RlimitMemlock => Resource::Memlock,
        PosixRlimitType::RlimitAs => Resource::As,
        PosixRlimitType::RlimitLocks => Resource::Locks,
        PosixRlimitType::RlimitSigpending => Resource::Sigpending,
        PosixRlimitType::RlimitMsgqueue => Resource::Msgqueue,
        PosixRlimitType::RlimitNice => Resource::Nice,
        PosixRlimitType::RlimitRtprio => Resource::Rtprio,
        PosixRlimitType::RlimitRttime => Resource::Rttime,
    }
}

/// The process's security labels, which the program gets when it is executed.
pub(crate) fn label(process: &Process, proc: &crate::procfs::Procfs) -> Result<()> {
    if let Some(profile) = process
        .apparmor_profile()
        .as_deref()
        .filter(|name| !name.is_empty())
    {
        proc.set_apparmor(profile)?;
    }
    if let Some(label) = process
        .selinux_label()
        .as_deref()
        .filter(|label| !label.is_empty())
    {
        proc.set_selinux(label)?;
    }
    Ok(())
}

/// Makes the three descriptors 0, 1 and 2.
pub(crate) fn place_stdio(stdio: &Stdio) -> Result<()> {
    // One of them may itself be 0, 1 or 2, which an earlier one would overwrite.
    let lift = |fd: &OwnedFd| rustix::io::fcntl_dupfd_cloexec(fd, 3).during("duplicate stdio");
    let [stdin, stdout, stderr] = [
        lift(&stdio.stdin)?,
        lift(&stdio.stdout)?,
        lift(&stdio.stderr)?,
    ];
    rustix::stdio::dup2_stdin(stdin).during("set stdin")?;
    rustix::stdio::dup2_stdout(stdout).during("set stdout")?;
    rustix::stdio::dup2_stderr(stderr).during("set stderr")
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::Capability;

    #[test]
    fn every_capability_of_the_specification_has_a_number() {
        let all: Capabilities = [
            Capability::Chown,
            Capability::CheckpointRestore,
            Capability::Bpf,
        ]
        .into_iter()
        .collect();
        assert_eq!(named(Some(&all)).bits(), 1 | 1 << 40 | 1 << 39);
        assert_eq!(named(None), Set::default());
    }

    #[test]
    fn nothing_is_given_that_is_not_held() {
        let (chown, kill) = (Set::named(["CAP_CHOWN"]), Set::named(["CAP_KILL"]));
        let both = Set::named(["CAP_CHOWN", "CAP_KILL"]);
        let wanted = Sets {
            effective: both,
            permitted: chown,
            inheritable: both,
        };
        assert_eq!(
            cut(wanted, kill),
            Sets {
                effective: Set::default(),
                permitted: Set::default(),
                inheritable: kill
            }
        );
        assert_eq!(cut(wanted, both).effective, chown);
    }

    #[test]
    fn the_id_that_means_unchanged_is_no_id() {
        let mut process = Process::default();
        process.user_mut().set_uid(u32::MAX);
        assert!(matches!(Identity::new(&process), Err(Error::Invalid(_))));
        process
            .user_mut()
            .set_uid(0)
            .set_additional_gids(Some(vec![1, u32::MAX]));
        assert!(matches!(Identity::new(&process), Err(Error::Invalid(_))));
    }

    #[test]
    fn a_process_without_capabilities_gets_none() {
        let mut process = Process::default();
        process.set_capabilities(None);
        let identity = Identity::new(&process).unwrap();
        assert_eq!(
            (identity.bounding, identity.sets),
            (Set::default(), Sets::default())
        );
    }
}
