//! Making a container: its first process, up to the moment before its program.

use std::borrow::Borrow;
use std::os::fd::OwnedFd;

use carpel_sys::clone::{self, Ended, SingleThreaded};
use carpel_sys::credentials;
use carpel_sys::namespace::{self, Kinds};
use oci_spec::runtime::Linux;

use crate::error::{Context, Error, Result};
use crate::namespaces::Namespaces;
use crate::procfs::Procfs;
use crate::report::{self, Report};
use crate::stage::{NOT_EXECUTED, Stage};
use crate::{Create, rootfs};

/// A container's first process, which waits for the word to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CreatedProcess {
    pub pid: i32,
    /// The kernel does not let us lower oom_score_adj; it is what it was.
    pub oom_score_adj_refused: bool,
}

/// What a request means, before anything is done.
#[derive(Debug)]
struct Plan<'a> {
    linux: Linux,
    namespaces: Namespaces,
    stage: Stage<'a>,
    oom_score_adj: Option<i32>,
}

impl<'a> Plan<'a> {
    fn new(request: &'a Create) -> Result<Self> {
        let spec = &request.spec;
        let absent = |what: &str| Error::Invalid(format!("the configuration has no {what}"));
        let linux = spec
            .linux()
            .clone()
            .ok_or_else(|| absent("linux section"))?;
        rootfs::refuse_unsupported(spec, &linux)?;
        let process = spec.process().as_ref().ok_or_else(|| absent("process"))?;
        let mounts = spec.mounts().as_ref().map_or(0, Vec::len);
        if let Some((index, _)) = request.mounts.iter().find(|(index, _)| *index >= mounts) {
            let what = format!("a descriptor for mount {index} of {mounts}");
            return Err(Error::Invalid(what));
        }
        Ok(Self {
            namespaces: Namespaces::new(&linux)?,
            linux,
            stage: Stage::new(process, request.seccomp.as_deref())?,
            oom_score_adj: request.oom_score_adj.or(process.oom_score_adj()),
        })
    }
}

/// Makes a container whose first process waits for a byte on `start`.
///
/// The caller is a single-threaded process made for this: it is moved into the
/// namespaces that the container joins, and has to end soon after. What `start`
/// leads to is told by [`Create::outcome`].
pub fn create(request: impl Borrow<Create>) -> Result<CreatedProcess> {
    let request = request.borrow();
    let single = SingleThreaded::verify().during("clone")?;
    let plan = Plan::new(request)?;
    credentials::hide_from_tracers().during("hide from tracers")?;
    let proc = Procfs::open()?;
    plan.namespaces.join()?;
    let (reader, writer) = report::pipe()?;
    let (fresh, cgroup) = (plan.namespaces.fresh, request.cgroup.dir());
    let pid = clone::spawn(single, fresh, cgroup, || init(request, plan, &proc, writer))
        .during("clone the container's first process")?;
    match report::receive(&reader) {
        Ok(Report::Ready {
            oom_score_adj_refused,
        }) => Ok(CreatedProcess {
            pid,
            oom_score_adj_refused,
        }),
        Ok(Report::Failed(error)) => {
            clone::wait(pid).during("wait for the container's first process")?;
            Err(error)
        }
        Ok(Report::Silent) => Err(died(pid)?),
        Err(error) => Err(error),
    }
}

fn died(pid: i32) -> Result<Error> {
    let how = match clone::wait(pid).during("wait for the container's first process")? {
        Ended::Exited(code) => format!("ended with status {code}"),
        Ended::Signaled(signal) => format!("was killed by signal {signal}"),
    };
    Ok(Error::Os {
        what: "set up the container's first process".to_owned(),
        source: std::io::Error::other(format!("it {how}")),
    })
}

/// The life of the container's first process before its program.
fn init(request: &Create, mut plan: Plan<'_>, proc: &Procfs, report: OwnedFd) -> i32 {
    let ready = prepare(request, &mut plan, proc);
    match ready.and_then(|refused| report::send_ready(&report, refused)) {
        Ok(()) => drop(report),
        Err(error) => {
            report::send_error(&report, &error);
            return NOT_EXECUTED;
        }
    }
    // Without a byte the container was given up.
    if report::read(&request.start, &mut [0]) != Ok(1) {
        return NOT_EXECUTED;
    }
    report::send_error(&request.outcome, &plan.stage.execute());
    NOT_EXECUTED
}

/// Returns whether oom_score_adj could not be lowered.
fn prepare(request: &Create, plan: &mut Plan<'_>, proc: &Procfs) -> Result<bool> {
    rustix::process::umask(rustix::fs::Mode::empty());
    let shown = request.spec.mounts().iter().flatten().any(|mount| {
        mount
            .typ()
            .as_deref()
            .is_some_and(|kind| kind.starts_with("cgroup"))
    });
    let hierarchies = if shown {
        request.cgroup.enter_and_tell(proc)?
    } else {
        request.cgroup.enter()?;
        Vec::new()
    };
    if plan.namespaces.cgroup {
        namespace::unshare(Kinds::CGROUP).during("make a cgroup namespace")?;
    }
    let refused = match plan.oom_score_adj {
        Some(value) => proc.set_oom_score_adj(value)?,
        None => false,
    };
    for (name, value) in plan.linux.sysctl().iter().flatten() {
        proc.set_sysctl(name, value)?;
    }
    let cwd = rootfs::build(request, &plan.linux, plan.stage.cwd(), &hierarchies)?;
    name_host(request, plan.namespaces.fresh)?;
    plan.stage.settle(
        std::os::fd::AsFd::as_fd(&request.rootfs),
        &cwd,
        &request.stdio,
        proc,
    )?;
    Ok(refused)
}

/// The name belongs to whoever made the UTS namespace.
fn name_host(request: &Create, fresh: Kinds) -> Result<()> {
    if !fresh.contains(Kinds::UTS) {
        return Ok(());
    }
    if let Some(name) = request
        .spec
        .hostname()
        .as_deref()
        .filter(|name| !name.is_empty())
    {
        rustix::system::sethostname(name.as_bytes()).with(|| format!("set hostname {name}"))?;
    }
    if let Some(name) = request
        .spec
        .domainname()
        .as_deref()
        .filter(|name| !name.is_empty())
    {
        rustix::system::setdomainname(name.as_bytes()).with(|| format!("set domain {name}"))?;
    }
    Ok(())
}
