//! From a packet to a call, and from its answer to a reply.

use std::os::fd::OwnedFd;

use carpel_proto::holder::reply::Result as Answer;
use carpel_proto::holder::request::Call;
use carpel_proto::holder::{self as wire, MAX_PACKET, Request};
use prost::Message;

use crate::cgroup::Members;
use crate::connection::Origin;
use crate::error::{Error, Result};
use crate::holder::Holder;

/// Longest id of a container or an exec.
const ID: usize = 128;
/// Requests of one connection before anything else gets its turn.
const TURN: usize = 16;

/// An answer, or `None` when it comes later.
pub(crate) type Handled = Result<Option<Answer>>;

/// The descriptors of one request; each is for one purpose.
#[derive(Debug)]
pub(crate) struct Fds(Vec<Option<OwnedFd>>);

impl Fds {
    pub(crate) fn of(fds: Vec<OwnedFd>) -> Self {
        Self(fds.into_iter().map(Some).collect())
    }

    pub(crate) fn take(&mut self, index: u32, what: &str) -> Result<OwnedFd> {
        let count = self.0.len();
        let slot = usize::try_from(index)
            .ok()
            .and_then(|index| self.0.get_mut(index));
        slot.and_then(Option::take).ok_or_else(|| {
            Error::Invalid(format!(
                "{what}: descriptor {index} of {count} is not there or already used"
            ))
        })
    }

    pub(crate) fn maybe(&mut self, index: Option<u32>, what: &str) -> Result<Option<OwnedFd>> {
        index.map(|index| self.take(index, what)).transpose()
    }

    pub(crate) fn many(&mut self, indices: &[u32], what: &str) -> Result<Vec<OwnedFd>> {
        indices
            .iter()
            .map(|index| self.take(*index, what))
            .collect()
    }

    pub(crate) fn members(
        &mut self,
        procs: &[u32],
        dir: Option<u32>,
        kill: Option<u32>,
    ) -> Result<Members> {
        Ok(Members {
            procs: self.many(procs, "cgroup_procs_fd")?,
            dir: self.maybe(dir, "cgroup_dir_fd")?,
            kill: self.maybe(kill, "cgroup_kill_fd")?,
        })
    }
}

pub(crate) fn check_id(what: &str, id: &str) -> Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if id.is_empty() || id.len() > ID || !id.chars().all(plain) {
        return Err(Error::Invalid(format!("{what} {id:?} is no id")));
    }
    Ok(())
}

pub(crate) fn check_signal(signal: i32) -> Result<()> {
    if !(1..=64).contains(&signal) {
        return Err(Error::Invalid(format!("signal {signal} is none")));
    }
    Ok(())
}

pub(crate) fn done() -> Handled {
    Ok(Some(Answer::Done(wire::Done {})))
}

impl Holder {
    /// Takes what the daemon sends; anything out of order ends the connection, and
    /// never more than that.
    pub(crate) fn on_connection(&mut self) {
        for _ in 0..TURN {
            let Some(connection) = &mut self.connection else {
                return;
            };
            if connection.flush().is_err() {
                return self.disconnect();
            }
            let serial = connection.serial;
            match connection.receive(&mut self.buffer[..MAX_PACKET]) {
                Ok(None) => break,
                Ok(Some(packet)) if packet.len > 0 && !packet.truncated => {
                    let Ok(request) = Request::decode(&self.buffer[..packet.len]) else {
                        return self.disconnect();
                    };
                    let fds = Fds::of(packet.fds);
                    self.request(serial, request, fds);
                }
                Ok(Some(_)) | Err(_) => return self.disconnect(),
            }
        }
        self.watch_room();
    }

    fn request(&mut self, connection: u32, request: Request, mut fds: Fds) {
        let origin = Origin {
            connection,
            request: request.id,
        };
        let handled = match request.call {
            Some(call) => self.call(origin, call, &mut fds),
            None => Err(Error::Unsupported(
                "a call that this holder does not know".to_owned(),
            )),
        };
        match handled {
            Ok(Some(answer)) => self.reply(origin, answer),
            Ok(None) => {}
            Err(error) => self.refuse(origin, &error),
        }
    }

    fn call(&mut self, origin: Origin, call: Call, fds: &mut Fds) -> Handled {
        match call {
            Call::Setup(setup) => return self.setup(origin, &setup, fds),
            Call::Shutdown(_) => return self.begin_shutdown(origin),
            _ if self.pod.is_none() => {
                return Err(Error::FailedPrecondition(
                    "the pod is not set up".to_owned(),
                ));
            }
            _ if self.is_ending() => {
                return Err(Error::FailedPrecondition(
                    "the pod is being shut down".to_owned(),
                ));
            }
            _ => {}
        }
        match call {
            Call::Create(create) => self.create(origin, create, fds),
            Call::Start(start) => match start.oci {
                Some(oci) => self.start_by_runtime(origin, &start.container_id, oci, fds),
                None => self.start(origin, &start.container_id),
            },
            Call::Signal(call) => self.signal(&call.container_id, call.signal, call.all),
            Call::Delete(delete) => self.delete(origin, &delete.container_id),
            Call::Exec(exec) => self.exec(origin, exec, fds),
            Call::SignalExec(call) => self.signal_exec(&call.exec_id, call.signal),
            Call::ReopenLog(call) => {
                let file = fds.take(call.log_fd, "log_fd")?;
                self.reopen_log(origin, &call.container_id, file)
            }
            Call::Setup(_) | Call::Shutdown(_) => Err(Error::Invalid("asked twice".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_plain() {
        assert!(check_id("container", "a1-b.c_d").is_ok());
        for id in ["", "a/b", "a b", "ä", &"x".repeat(ID + 1)] {
            assert!(check_id("container", id).is_err(), "{id}");
        }
    }

    #[test]
    fn a_descriptor_serves_once() {
        let file = std::fs::File::open("/").unwrap();
        let mut fds = Fds::of(vec![file.into()]);
        assert!(fds.take(1, "x").is_err());
        assert!(fds.take(0, "x").is_ok());
        let error = fds.take(0, "spec_fd").unwrap_err().to_string();
        assert!(error.contains("spec_fd"), "{error}");
    }
}
