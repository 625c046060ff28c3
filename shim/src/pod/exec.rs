//! ExecSync: a command beside a container's first process, with its output.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use carpel_proto::holder::Exec;
use carpel_proto::state::container_record::Phase;
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::time::{Instant, timeout, timeout_at};

use super::container::Container;
use super::create::memory_file;
use super::ids::new_id;
use super::oci;
use super::oom;
use super::recorded::blocking;
use super::runtime::Runtime;
use crate::error::Error;
use crate::holder::{HolderClient, HolderError};

/// Most output of a stream that a client gets; the rest is read and dropped.
const MOST_OUTPUT: usize = 16 << 20;
/// For output that is on its way when the command has ended.
const DRAIN: Duration = Duration::from_secs(2);
const SIGKILL: i32 = 9;
/// For a cgroup that cannot be removed at once.
const CLEANING_TRIES: u32 = 20;
const CLEANING_PAUSE: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub(crate) struct ExecOutput {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    pub(crate) exit_code: i32,
}

impl Runtime {
    /// Runs `command` and waits for it, at most for `limit`.
    pub(crate) async fn exec_sync(
        &self,
        id: &str,
        command: &[String],
        limit: Option<Duration>,
    ) -> Result<ExecOutput, Error> {
        let container = self.container(id)?;
        if command.is_empty() || command[0].is_empty() {
            return Err(Error::Invalid("cmd: is empty".into()));
        }
        if container.phase() != Phase::Running {
            return Err(Error::FailedPrecondition(format!(
                "container {id} is not running"
            )));
        }
        // Beyond what a timer can hold there is no limit either.
        let due = limit.and_then(|limit| Some((limit, Instant::now().checked_add(limit)?)));
        let mut running = until(due, command, self.start_exec(&container, command)).await?;
        let output = until(due, command, running.wait()).await;
        running.end().await;
        output
    }

    async fn start_exec(
        &self,
        container: &Arc<Container>,
        command: &[String],
    ) -> Result<Running, Error> {
        let pod = self.pod_of(container)?;
        let holder = pod.holder()?;
        let exec_id = new_id()?[..16].to_owned();
        let parent = container.cgroup();
        let name = format!("exec-{exec_id}");
        let spec = self.spec_of(container).await?;
        let mut process = carpel_spec::exec_process(&spec, command, false)?;
        process.set_oom_score_adj(oom::adjustment(container));
        let mut running = Running {
            holder: holder.clone(),
            cgroups: Arc::clone(&self.parts.cgroups),
            cgroup: format!("{parent}/{name}"),
            exec_id: exec_id.clone(),
            exit: None,
            output: None,
            ended: false,
        };
        let cgroups = Arc::clone(&self.parts.cgroups);
        let runtime = self.runtime_of(&pod)?;
        // A runtime knows the container's profile.
        let seccomp = match runtime {
            Some(_) => None,
            None => self.filter(&container.config, &spec)?,
        };
        let mut message = Exec {
            container_id: container.id.clone(),
            exec_id,
            kill_on_disconnect: true,
            ..Exec::default()
        };
        let (message, fds, stdout, stderr) = blocking(move || {
            let cgroup = cgroups.create_inside(&parent, &name)?;
            let mut fds = Fds::default();
            let json = serde_json::to_vec(&process)
                .map_err(|e| Error::Internal(format!("encode the command: {e}")))?;
            message.process_fd = fds.add(memory_file("process", &json)?);
            if let Some(program) = seccomp {
                message.seccomp_fd = Some(fds.add(memory_file("seccomp", &program)?));
            }
            if let Some(runtime) = runtime {
                message.oci = Some(fds.add_runtime(runtime));
                message.oci_cgroup = oci::cgroup_option(&cgroup, &name);
            }
            let (stdout, write) = pipe()?;
            message.stdout_fd = Some(fds.add(write));
            let (stderr, write) = pipe()?;
            message.stderr_fd = Some(fds.add(write));
            fds.add_cgroup(
                &cgroup,
                &mut message.cgroup_procs_fd,
                &mut message.cgroup_dir_fd,
                &mut message.cgroup_kill_fd,
            )?;
            Ok((message, fds.0, stdout, stderr))
        })
        .await?;
        let receiver = |fd| Receiver::from_owned_fd(fd).map_err(Error::io("watch a pipe"));
        running.output = Some((receiver(stdout)?, receiver(stderr)?));
        running.exit = Some(holder.exec(message, fds).await.map_err(exec_error)?);
        Ok(running)
    }
}

/// The command's limit is for all of it: a holder that hangs counts too.
async fn until<T>(
    due: Option<(Duration, Instant)>,
    command: &[String],
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let Some((after, due)) = due else {
        return work.await;
    };
    timeout_at(due, work).await.unwrap_or_else(|_| {
        Err(Error::Deadline {
            what: format!("command {command:?}"),
            after,
        })
    })
}

/// The command itself is at fault: the client should read of it, not of us.
fn exec_error(error: HolderError) -> Error {
    match error {
        HolderError::CannotExecute(text) => Error::FailedPrecondition(text),
        other => other.into(),
    }
}

/// Descriptors of one message, by index.
#[derive(Debug, Default)]
pub(super) struct Fds(pub(super) Vec<OwnedFd>);

impl Fds {
    pub(super) fn add(&mut self, fd: OwnedFd) -> u32 {
        self.0.push(fd);
        u32::try_from(self.0.len() - 1).unwrap_or(u32::MAX)
    }

    pub(super) fn add_cgroup(
        &mut self,
        cgroup: &carpel_cgroup::Cgroup,
        procs: &mut Vec<u32>,
        dir: &mut Option<u32>,
        kill: &mut Option<u32>,
    ) -> Result<(), Error> {
        for fd in cgroup.procs()? {
            procs.push(self.add(fd));
        }
        *dir = cgroup.dir()?.map(|fd| self.add(fd));
        *kill = cgroup.kill_file()?.map(|fd| self.add(fd));
        Ok(())
    }
}

/// A command that runs. Dropped before its end, as when the client goes away, it
/// is killed with all that it started.
struct Running {
    holder: HolderClient,
    cgroups: Arc<carpel_cgroup::Hierarchies>,
    cgroup: String,
    exec_id: String,
    exit: Option<tokio::sync::oneshot::Receiver<i32>>,
    output: Option<(Receiver, Receiver)>,
    ended: bool,
}

impl Running {
    async fn wait(&mut self) -> Result<ExecOutput, Error> {
        let (Some(mut exit), Some((out, err))) = (self.exit.take(), self.output.take()) else {
            return Err(Error::Internal("a command is waited for twice".into()));
        };
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let exit_code = {
            let reading = async { tokio::join!(read(out, &mut stdout), read(err, &mut stderr)) };
            tokio::pin!(reading);
            tokio::select! {
                code = &mut exit => {
                    drop(timeout(DRAIN, &mut reading).await);
                    code
                }
                _ = &mut reading => exit.await,
            }
        }
        .map_err(|_| Error::from(HolderError::Gone))?;
        self.ended = true;
        Ok(ExecOutput {
            stdout,
            stderr,
            exit_code,
        })
    }

    async fn end(mut self) {
        if !self.ended {
            if let Err(error) = self.holder.signal_exec(&self.exec_id, SIGKILL).await {
                tracing::debug!(exec = %self.exec_id, %error, "cannot signal the command");
            }
            self.ended = true;
        }
        clean(Arc::clone(&self.cgroups), self.cgroup.clone()).await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let (holder, exec_id) = (self.holder.clone(), self.exec_id.clone());
        let (cgroups, cgroup) = (Arc::clone(&self.cgroups), self.cgroup.clone());
        tokio::spawn(async move {
            drop(holder.signal_exec(&exec_id, SIGKILL).await);
            clean(cgroups, cgroup).await;
        });
    }
}

/// The whole tree is gone when this returns; what cannot be removed now, as for want
/// of descriptors, is later.
async fn clean(cgroups: Arc<carpel_cgroup::Hierarchies>, path: String) {
    if remove(&cgroups, &path).await.is_ok() {
        return;
    }
    tokio::spawn(async move {
        for _ in 0..CLEANING_TRIES {
            tokio::time::sleep(CLEANING_PAUSE).await;
            if remove(&cgroups, &path).await.is_ok() {
                return;
            }
        }
        tracing::warn!(cgroup = %path, "the cgroup of a command stays until its container goes");
    });
}

async fn remove(cgroups: &Arc<carpel_cgroup::Hierarchies>, path: &str) -> Result<(), Error> {
    let (cgroups, name) = (Arc::clone(cgroups), path.to_owned());
    let removed = blocking(move || {
        let cgroup = cgroups.open(&name)?;
        cgroup.kill()?;
        Ok(cgroup.remove()?)
    })
    .await;
    removed.inspect_err(|error| {
        tracing::warn!(cgroup = %path, %error, "cannot remove the cgroup of a command");
    })
}

fn pipe() -> Result<(OwnedFd, OwnedFd), Error> {
    let (read, write) =
        pipe_with(PipeFlags::CLOEXEC).map_err(|e| Error::io("make a pipe")(e.into()))?;
    rustix::io::ioctl_fionbio(&read, true).map_err(|e| Error::io("make a pipe")(e.into()))?;
    Ok((read, write))
}

/// Until the end of the stream; what is over the limit is dropped, so that the
/// command is never blocked.
async fn read(mut pipe: Receiver, into: &mut Vec<u8>) {
    let mut chunk = vec![0; 64 << 10];
    loop {
        match pipe.read(&mut chunk).await {
            Ok(0) | Err(_) => return,
            Ok(length) => {
                let room = MOST_OUTPUT - into.len();
                into.extend_from_slice(&chunk[..length.min(room)]);
            }
        }
    }
}
