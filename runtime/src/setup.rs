//! The pod's namespaces.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use carpel_proto::holder::event::What;
use carpel_proto::holder::reply::Result as Answer;
use carpel_proto::holder::{PodInitExited, Setup, SetupDone};
use carpel_sys::namespace::{self, Kinds};
use carpel_sys::{netdev, pidfd};

use crate::connection::Origin;
use crate::error::{Context, Error, Result};
use crate::exit::take_exit;
use crate::holder::Holder;
use crate::poll::Kind;
use crate::request::{Fds, Handled, check_id};
use crate::sysctl::Sysctl;
use crate::{pod_init, startup, tree};

/// As long as the kernel takes.
const HOSTNAME: usize = 64;

/// What Setup has made.
#[derive(Debug)]
pub(crate) struct Pod {
    pub(crate) id: String,
    pub(crate) netns: Option<OwnedFd>,
    pub(crate) init: Option<PodInit>,
}

#[derive(Debug)]
pub(crate) struct PodInit {
    pub(crate) pid: i32,
    pub(crate) pidfd: OwnedFd,
}

impl Holder {
    /// Makes everything or ends the holder: half a pod is none.
    pub(crate) fn setup(&mut self, origin: Origin, setup: &Setup, fds: &mut Fds) -> Handled {
        if let Some(pod) = &self.pod {
            let what = format!("pod {:?} is set up already", pod.id);
            return Err(Error::AlreadyExists(what));
        }
        match make(setup, fds).and_then(|pod| self.adopt(pod)) {
            Ok(pod) => {
                let done = SetupDone {
                    netns_fd: pod.netns.as_ref().map(|_| 0),
                    pod_init_pid: pod.init.as_ref().map_or(0, |init| init.pid),
                };
                let netns = pod.netns.as_ref().map(OwnedFd::try_clone).transpose();
                let netns = netns.during("copy the network namespace's descriptor")?;
                self.pod = Some(pod);
                self.poll.disarm(Kind::SetupDeadline, 0);
                self.reply_with(origin, Answer::Setup(done), netns.as_ref());
            }
            Err(error) => {
                self.refuse(origin, &error);
                self.end = Some(Err(error));
            }
        }
        Ok(None)
    }

    fn adopt(&mut self, pod: Pod) -> Result<Pod> {
        if let Some(init) = &pod.init {
            let watched = self.poll.add(&init.pidfd, Kind::PodInit, 0);
            watched.during("watch the pod's init")?;
        }
        Ok(pod)
    }

    pub(crate) fn on_pod_init(&mut self) {
        let Some(pod) = &mut self.pod else { return };
        let Some(init) = &pod.init else { return };
        let Some(exit) = take_exit(&init.pidfd) else {
            return;
        };
        self.poll.remove(&init.pidfd);
        pod.init = None;
        let wait_status = exit.wait_status();
        self.tell(What::PodInitExited(PodInitExited { wait_status }));
        self.reap_orphans();
    }
}

fn make(setup: &Setup, fds: &mut Fds) -> Result<Pod> {
    check_id("pod", &setup.pod_id)?;
    check_hostname(setup)?;
    let sysctls: Vec<Sysctl> = setup
        .sysctls
        .iter()
        .map(|(name, value)| Sysctl::parse(name, value, setup))
        .collect::<Result<_>>()?;
    for procs in fds.many(&setup.cgroup_procs_fd, "cgroup_procs_fd")? {
        rustix::io::write(&procs, b"0").during("join the pod's cgroup")?;
    }
    set_oom_score_adj(setup.oom_score_adj)?;
    namespace::unshare(kinds(setup)).during("make the pod's namespaces")?;
    let netns = if setup.network {
        netdev::loopback_up().during("bring the loopback device up")?;
        let netns = namespace::open(Path::new("/proc/self/ns/net"));
        Some(netns.during("open the network namespace")?)
    } else {
        None
    };
    if !setup.hostname.is_empty() {
        rustix::system::sethostname(setup.hostname.as_bytes())
            .during(format!("set the hostname {:?}", setup.hostname))?;
    }
    tree::enter(setup.shm_size)?;
    startup::use_null("/dev/null").during("open the holder's /dev/null")?;
    for sysctl in &sysctls {
        sysctl.write()?;
    }
    let init = if setup.shared_pid {
        Some(start_init()?)
    } else {
        None
    };
    Ok(Pod {
        id: setup.pod_id.clone(),
        netns,
        init,
    })
}

fn start_init() -> Result<PodInit> {
    let pid = pod_init::spawn().during("start the pod's init")?;
    let pidfd = pidfd::open(pid).during("open the pod's init")?;
    Ok(PodInit { pid, pidfd })
}

fn kinds(setup: &Setup) -> Kinds {
    let wanted = [
        (setup.network, Kinds::NET),
        (setup.ipc, Kinds::IPC),
        (setup.uts, Kinds::UTS),
    ];
    let own = wanted.iter().filter(|(own, _)| *own);
    own.fold(Kinds::MOUNT, |all, (_, kind)| all | *kind)
}

fn check_hostname(setup: &Setup) -> Result<()> {
    let name = &setup.hostname;
    if name.len() > HOSTNAME || name.contains(|c: char| c.is_control() || c == '/') {
        return Err(Error::Invalid(format!("hostname {name:?} is none")));
    }
    if !name.is_empty() && !setup.uts {
        let what = format!("hostname {name:?} for a pod without a UTS namespace");
        return Err(Error::Invalid(what));
    }
    Ok(())
}

/// Lowering it needs a capability that the daemon may lack; the pod runs without.
fn set_oom_score_adj(value: i32) -> Result<()> {
    match std::fs::write("/proc/self/oom_score_adj", value.to_string()) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        written => written.during(format!("set oom_score_adj {value}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_namespaces_asked_for_are_made() {
        assert_eq!(kinds(&Setup::default()), Kinds::MOUNT);
        let own = Setup {
            network: true,
            uts: true,
            ..Setup::default()
        };
        assert_eq!(kinds(&own), Kinds::MOUNT | Kinds::NET | Kinds::UTS);
    }

    #[test]
    fn a_hostname_is_plain_and_the_pods_own() {
        let named = |hostname: &str, uts| Setup {
            hostname: hostname.into(),
            uts,
            ..Setup::default()
        };
        assert!(check_hostname(&named("web-1", true)).is_ok());
        assert!(check_hostname(&named("", false)).is_ok());
        assert!(check_hostname(&named("web", false)).is_err());
        for bad in ["a\nb", "a\0b", "a/b", &"x".repeat(65)] {
            assert!(check_hostname(&named(bad, true)).is_err(), "{bad:?}");
        }
    }
}
