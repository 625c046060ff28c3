//! Containers that a low-level runtime makes instead of the native executor.

use carpel_oci_cli::{Place, Runtime};
use carpel_proto::holder::reply::Result as Answer;
use carpel_proto::holder::{Exec as ExecCall, OciRuntime, Started};

use crate::connection::Origin;
use crate::container::{Phase, now_ns};
use crate::error::{Error, Result};
use crate::holder::{Holder, missing};
use crate::request::{Fds, Handled};
use crate::worker::{Job, Purpose};

/// What a worker needs to let a container start.
#[derive(Debug)]
pub(crate) struct OciStart {
    pub(crate) place: Place,
    pub(crate) container_id: String,
}

/// What an exec needs beside what every exec does.
#[derive(Debug)]
pub(crate) struct OciExec {
    pub(crate) place: Place,
    pub(crate) container_id: String,
    /// The container's first process.
    pub(crate) init: i32,
    pub(crate) cgroup: String,
}

/// The runtime of a request, with its descriptor.
pub(crate) fn place(oci: OciRuntime, fds: &mut Fds) -> Result<Place> {
    for (what, path) in [
        ("binary", &oci.binary),
        ("root", &oci.root),
        ("directory", &oci.directory),
    ] {
        if !path.starts_with('/') {
            return Err(Error::Invalid(format!(
                "oci.{what} {path:?} is not absolute"
            )));
        }
    }
    Ok(Place {
        mount_namespace: fds.take(oci.mount_namespace_fd, "oci.mount_namespace_fd")?,
        runtime: Runtime {
            binary: oci.binary.into(),
            root: oci.root.into(),
            args: oci.args,
        },
        directory: oci.directory.into(),
    })
}

pub(crate) fn exec(call: &ExecCall, init: i32, fds: &mut Fds) -> Result<Option<OciExec>> {
    let Some(oci) = &call.oci else {
        return Ok(None);
    };
    Ok(Some(OciExec {
        place: place(oci.clone(), fds)?,
        container_id: call.container_id.clone(),
        init,
        cgroup: call.oci_cgroup.clone(),
    }))
}

impl OciStart {
    pub(crate) fn run(self) -> Result<Answer> {
        carpel_oci_cli::start(&self.place, &self.container_id)?;
        Ok(Answer::Started(Started {
            started_at_ns: now_ns(),
        }))
    }
}

impl Holder {
    pub(crate) fn start_by_runtime(
        &mut self,
        origin: Origin,
        id: &str,
        oci: OciRuntime,
        fds: &mut Fds,
    ) -> Handled {
        let key = self.find(id)?;
        let container = self.containers.get(&key).ok_or_else(|| missing(id))?;
        if container.phase != Phase::Created || container.start.is_some() {
            let what = format!("container {id:?} has been started or is not ready to be");
            return Err(Error::FailedPrecondition(what));
        }
        let job = OciStart {
            place: place(oci, fds)?,
            container_id: id.to_owned(),
        };
        self.work(Job::Start(job), Purpose::Start(key, origin))?;
        if let Some(container) = self.containers.get_mut(&key) {
            container.phase = Phase::Starting(origin);
            container.started_at_ns = now_ns();
        }
        Ok(None)
    }

    /// Goes on where a worker has ended. The container may have ended before it.
    pub(crate) fn started_by_runtime(&mut self, key: u32, origin: Origin, result: Result<Answer>) {
        let started = match result {
            Ok(Answer::Started(started)) => Ok(started),
            Ok(_) => Err(Error::Invalid("a worker did another job".to_owned())),
            Err(error) => Err(error),
        };
        if let Some(container) = self.containers.get_mut(&key) {
            let starting = matches!(container.phase, Phase::Starting(_));
            match &started {
                Ok(started) => {
                    container.started_at_ns = started.started_at_ns;
                    if starting {
                        container.phase = Phase::Running;
                    }
                }
                // It waits still, and can be tried again.
                Err(_) if starting => {
                    container.phase = Phase::Created;
                    container.started_at_ns = 0;
                }
                Err(_) => {}
            }
        }
        match started {
            Ok(started) => self.reply(origin, Answer::Started(started)),
            Err(error) => self.refuse(origin, &error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_is_named_by_absolute_paths() {
        let good = OciRuntime {
            binary: "/usr/bin/runc".into(),
            root: "/run/r".into(),
            directory: "/run/p".into(),
            ..OciRuntime::default()
        };
        let namespace = || Fds::of(vec![std::fs::File::open("/").unwrap().into()]);
        assert!(place(good.clone(), &mut namespace()).is_ok());
        let error = place(good.clone(), &mut Fds::of(Vec::new())).unwrap_err();
        assert!(error.to_string().contains("mount_namespace_fd"), "{error}");
        let bad = OciRuntime {
            binary: "runc".into(),
            ..good
        };
        let error = place(bad, &mut namespace()).unwrap_err().to_string();
        assert!(error.contains("oci.binary \"runc\""), "{error}");
    }
}
