//! Running another program in a container that is there.

use std::borrow::Borrow;
use std::os::fd::{AsFd, OwnedFd};

use carpel_sys::clone::{self, SingleThreaded};
use carpel_sys::credentials;
use carpel_sys::namespace::{self, Kinds};
use carpel_sys::openat2::{Mode, OFlags};

use crate::Exec;
use crate::error::{Context, Result};
use crate::procfs::Procfs;
use crate::report::{self, Report};
use crate::stage::{self, NOT_EXECUTED, Stage};

/// Runs a program in the namespaces of a container's first process, and returns
/// its pid once it runs.
///
/// The caller is a single-threaded process made for this: it is moved into the
/// container's namespaces and has to end soon after.
pub fn exec<'a>(request: impl Borrow<Exec<'a>>) -> Result<i32> {
    let request = request.borrow();
    let single = SingleThreaded::verify().during("clone")?;
    let stage = Stage::new(&request.process, request.seccomp.as_deref())?;
    // From the next step on, what runs in the container could look at us.
    credentials::hide_from_tracers().during("hide from tracers")?;
    let proc = Procfs::open()?;
    let oom_score_adj = match request.process.oom_score_adj() {
        Some(value) => Some(value),
        None => proc.oom_score_adj_of(request.init),
    };
    let kinds = Kinds::MOUNT | Kinds::PID | Kinds::NET | Kinds::IPC | Kinds::UTS;
    namespace::join(request.init, kinds).during("join the container's namespaces")?;
    let (reader, writer) = report::pipe()?;
    let child = || run(request, stage, &proc, oom_score_adj, &writer);
    let pid = clone::spawn(single, Kinds::NONE, request.cgroup.dir(), child)
        .during("clone a process for the container")?;
    drop(writer);
    match report::receive(&reader)? {
        Report::Failed(error) => {
            clone::wait(pid).during("wait for the container's process")?;
            Err(error)
        }
        Report::Ready { .. } | Report::Silent => Ok(pid),
    }
}

fn run(
    request: &Exec<'_>,
    mut stage: Stage<'_>,
    proc: &Procfs,
    oom_score_adj: Option<i32>,
    report: &OwnedFd,
) -> i32 {
    let error = match prepare(request, &mut stage, proc, oom_score_adj) {
        Ok(()) => stage.execute(),
        Err(error) => error,
    };
    report::send_error(report, &error);
    NOT_EXECUTED
}

fn prepare(
    request: &Exec<'_>,
    stage: &mut Stage<'_>,
    proc: &Procfs,
    oom_score_adj: Option<i32>,
) -> Result<()> {
    request.cgroup.enter()?;
    // Only now: seen from inside, the way from the holder's cgroup to the
    // container's starts outside, which the kernel may refuse to go.
    namespace::join(request.init, Kinds::CGROUP).during("join the cgroup namespace")?;
    if let Some(value) = oom_score_adj {
        proc.set_oom_score_adj(value)?;
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open("/", flags, Mode::empty()).during("open the container's root")?;
    let cwd = stage::find_cwd(root.as_fd(), stage.cwd(), false)?;
    stage.settle(root.as_fd(), &cwd, &request.stdio, proc)
}
