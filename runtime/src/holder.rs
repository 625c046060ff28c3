//! The holder's state and its loop.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::time::Duration;

use carpel_logs::Stream;
use carpel_proto::holder::MAX_PACKET;
use carpel_sys::signal::ChildSignal;

use crate::connection::Connection;
use crate::container::Container;
use crate::error::{Context, Error, Result};
use crate::exec::Exec;
use crate::poll::{Kind, Poll, Token};
use crate::setup::Pod;
use crate::shutdown::Shutdown;
use crate::worker::Worker;
use crate::{startup, stdio};

/// How long a holder waits for its first request.
const SETUP: Duration = Duration::from_secs(30);
/// Time for the last packets to reach the daemon.
const FAREWELL: Duration = Duration::from_secs(1);

/// More than is ever used: so large a piece the allocator maps, and what is never
/// touched of it takes no memory.
const BUFFER: usize = 256 << 10;
const _: () = assert!(BUFFER > MAX_PACKET && BUFFER > stdio::CHUNK);

/// Everything a pod is.
#[derive(Debug)]
pub(crate) struct Holder {
    pub(crate) poll: Poll,
    pub(crate) listener: OwnedFd,
    pub(crate) children: ChildSignal,
    pub(crate) connection: Option<Connection>,
    /// Absent until it is set up.
    pub(crate) pod: Option<Pod>,
    pub(crate) containers: BTreeMap<u32, Container>,
    pub(crate) execs: BTreeMap<u32, Exec>,
    pub(crate) workers: BTreeMap<u32, Worker>,
    pub(crate) shutdown: Option<Shutdown>,
    pub(crate) last_seq: u64,
    /// For a packet or a chunk of output, whichever is being taken.
    pub(crate) buffer: Vec<u8>,
    pub(crate) end: Option<Result<()>>,
    last_key: u32,
}

/// Runs a holder; standard input is its control socket.
pub fn run() -> std::result::Result<(), impl std::error::Error> {
    let listener = startup::detach()?;
    Holder::new(listener, SETUP)?.run()
}

impl Holder {
    fn new(listener: OwnedFd, setup: Duration) -> Result<Self> {
        let mut poll = Poll::new().during("make an epoll")?;
        let children = ChildSignal::new().during("watch children")?;
        let flags = rustix::fs::OFlags::NONBLOCK;
        rustix::fs::fcntl_setfl(&listener, flags).during("set up the control socket")?;
        poll.add(&listener, Kind::Listener, 0)
            .during("watch the control socket")?;
        poll.add(&children, Kind::Children, 0)
            .during("watch children")?;
        poll.arm(setup, Kind::SetupDeadline, 0);
        Ok(Self {
            poll,
            listener,
            children,
            connection: None,
            pod: None,
            containers: BTreeMap::new(),
            execs: BTreeMap::new(),
            workers: BTreeMap::new(),
            shutdown: None,
            last_seq: 0,
            buffer: vec![0; BUFFER],
            end: None,
            last_key: 0,
        })
    }

    fn run(mut self) -> Result<()> {
        let mut ready = Vec::new();
        loop {
            self.poll.wait(&mut ready).during("wait for events")?;
            for token in &ready {
                self.handle(*token);
            }
            if self.shutdown.is_some() {
                self.go_on_shutting_down();
            }
            if let Some(end) = self.end.take() {
                if let Some(connection) = &mut self.connection {
                    connection.flush_within(FAREWELL);
                }
                return end;
            }
        }
    }

    fn handle(&mut self, Token { kind, key }: Token) {
        match kind {
            Kind::Listener => self.on_listener(),
            Kind::Connection => self.on_connection(),
            Kind::Children => {
                self.children.clear();
                self.reap_orphans();
            }
            Kind::PodInit => self.on_pod_init(),
            Kind::Worker => self.on_worker(key),
            Kind::WorkerDeadline => self.on_worker_deadline(key),
            Kind::Stdout => self.on_output(key, Stream::Stdout),
            Kind::Stderr => self.on_output(key, Stream::Stderr),
            Kind::Outcome => self.on_outcome(key),
            Kind::ContainerExit => self.on_container_exit(key),
            Kind::ContainerTimer => self.settle_container(key),
            Kind::ExecExit => self.on_exec_exit(key),
            Kind::ExecTimer => self.settle_exec(key),
            Kind::ReopenDeadline => self.on_reopen_deadline(key),
            // It only wakes the loop, which goes on with the shutdown by itself.
            Kind::ShutdownTimer => {}
            Kind::SetupDeadline => {
                if self.pod.is_none() {
                    self.end = Some(Err(Error::FailedPrecondition(
                        "no daemon has set the pod up".to_owned(),
                    )));
                }
            }
        }
    }

    pub(crate) fn next_key(&mut self) -> u32 {
        self.last_key = self.last_key.wrapping_add(1);
        self.last_key
    }

    /// The key of a container.
    pub(crate) fn find(&self, id: &str) -> Result<u32> {
        let mut all = self.containers.iter();
        all.find(|(_, container)| container.id == id)
            .map(|(key, _)| *key)
            .ok_or_else(|| missing(id))
    }
}

pub(crate) fn missing(id: &str) -> Error {
    Error::NotFound(format!("container {id:?} is not in this pod"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use carpel_sys::seqpacket;

    #[test]
    fn a_holder_that_nobody_sets_up_ends() {
        let path = std::env::temp_dir().join(format!("holder-{}", std::process::id()));
        let listener = seqpacket::listen(&path, 1).unwrap();
        std::fs::remove_file(path).unwrap();
        let holder = Holder::new(listener, Duration::from_millis(20)).unwrap();
        let end = holder.run().unwrap_err();
        assert!(matches!(end, Error::FailedPrecondition(_)), "{end}");
    }
}
