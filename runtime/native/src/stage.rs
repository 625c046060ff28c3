//! The last steps of a new process, the same for a container's first and any other.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use carpel_sys::openat2::{self, OFlags};
use carpel_sys::{clone, credentials, signal};
use nix::errno::Errno;
use oci_spec::runtime::Process;

use crate::Stdio;
use crate::error::{Context, Error, Result};
use crate::identity::{self, Identity};
use crate::procfs::Procfs;
use crate::program::Program;

/// Status of a process whose program could not be executed, as shells have it.
pub(crate) const NOT_EXECUTED: i32 = 127;

/// A process of a container, checked before anything is cloned.
#[derive(Debug)]
pub(crate) struct Stage<'a> {
    process: &'a Process,
    identity: Identity,
    program: Program,
    filter: Option<&'a [u8]>,
}

impl<'a> Stage<'a> {
    pub(crate) fn new(process: &'a Process, filter: Option<&'a [u8]>) -> Result<Self> {
        refuse_unsupported(process)?;
        Ok(Self {
            process,
            identity: Identity::new(process)?,
            program: Program::new(process)?,
            filter,
        })
    }

    pub(crate) fn cwd(&self) -> &Path {
        &self.program.cwd
    }

    /// Becomes what the process shall be, all but its program. `root` is the
    /// container's root and `cwd` a directory found in it.
    pub(crate) fn settle(
        &mut self,
        root: BorrowedFd<'_>,
        cwd: &OwnedFd,
        stdio: &Stdio,
        proc: &Procfs,
    ) -> Result<()> {
        self.program.complete(root, self.identity.uid);
        credentials::new_session_keyring().during("make a session keyring")?;
        rustix::process::setsid().during("make a session")?;
        identity::label(self.process, proc)?;
        self.identity.own_stdio(stdio);
        identity::place_stdio(stdio)?;
        enter(cwd, self.cwd())?;
        clone::close_on_exec_from(3).during("mark descriptors to be closed")?;
        clone::reset_signal_actions();
        self.identity.limit()?;
        self.identity.assume(self.filter)
    }

    /// Becomes the program; returns only why it did not.
    pub(crate) fn execute(&self) -> Error {
        match signal::unblock_all().during("unblock signals") {
            Ok(()) => self.program.execute(),
            Err(error) => error,
        }
    }
}

/// Finds the working directory inside `root`, and makes it where that is asked for.
/// A link of procfs that leads elsewhere is not followed.
pub(crate) fn find_cwd(root: BorrowedFd<'_>, path: &Path, make: bool) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let found = match openat2::open_in_root(root, path, flags, 0) {
        Err(error) if make && error.kind() == std::io::ErrorKind::NotFound => {
            openat2::mkdir_all_in_root(root, path, 0o755)
        }
        found => found,
    };
    let place = path.display();
    match found {
        Ok(fd) if openat2::is_directory(&fd).with(|| format!("look at {place}"))? => Ok(fd),
        Ok(_) => Err(Error::Invalid(format!(
            "working directory {place} is not a directory"
        ))),
        Err(error) => Err(match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ELOOP) => Error::Invalid(format!(
                "working directory {place} leads through a bad link"
            )),
            Some(Errno::ENOENT) => {
                Error::CannotExecute(format!("working directory {place} does not exist"))
            }
            Some(Errno::ENOTDIR) => {
                Error::Invalid(format!("working directory {place} is not a directory"))
            }
            _ => Error::Os {
                what: format!("open working directory {place}"),
                source: error,
            },
        }),
    }
}

fn enter(cwd: &OwnedFd, path: &Path) -> Result<()> {
    let what = || format!("enter working directory {}", path.display());
    rustix::process::fchdir(cwd.as_fd()).with(what)?;
    let here = rustix::process::getcwd(Vec::new()).with(what)?;
    if here.to_bytes().starts_with(b"/") {
        Ok(())
    } else {
        Err(Error::Invalid(format!(
            "working directory {} is outside",
            path.display()
        )))
    }
}

fn refuse_unsupported(process: &Process) -> Result<()> {
    let asked = [
        ("terminal", process.terminal() == Some(true)),
        ("scheduler", process.scheduler().is_some()),
        ("ioPriority", process.io_priority().is_some()),
        ("execCPUAffinity", process.exec_cpu_affinity().is_some()),
    ];
    match asked.iter().find(|(_, asked)| *asked) {
        Some((name, _)) => Err(Error::Unsupported(format!("process.{name}"))),
        None => Ok(()),
    }
}
