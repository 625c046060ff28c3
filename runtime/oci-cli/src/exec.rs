//! Running another program in a container that is there.

use crate::Exec;
use crate::bundle::{Bundle, LIMIT, ROOTFS};
use crate::error::{Error, Result};
use crate::oom;

/// Runs a program beside a container's first process, and returns its pid once it
/// runs.
///
/// The caller is a single-threaded process made for this and has to end soon after.
pub fn exec(request: Exec) -> Result<i32> {
    let Exec {
        place,
        id,
        init,
        mut process,
        stdio,
        cgroup,
    } = request;
    let bundle = Bundle::enter(&place)?;
    // runc starts out from where the root filesystem was when it made the container.
    bundle.directory(ROOTFS)?;
    // As the container's own; where that may not be, as it is.
    let wanted = process.oom_score_adj().or_else(|| oom::of(init));
    if let Some(value) = wanted {
        oom::set_own(value)?;
    }
    process.set_oom_score_adj(None);
    let text = serde_json::to_vec(&process)
        .map_err(|error| Error::Invalid(format!("the command's configuration: {error}")))?;
    let file = bundle.write("process.json", &text)?;
    let mut command = bundle.command(&place, "exec")?;
    command
        .arg("--detach")
        .arg("--process")
        .arg(file)
        .arg("--pid-file")
        .arg(bundle.pid_file());
    if !cgroup.is_empty() {
        command.arg("--cgroup").arg(&cgroup);
    }
    command.arg(&id).streams(stdio);
    command.run(LIMIT)?;
    bundle.pid()
}
