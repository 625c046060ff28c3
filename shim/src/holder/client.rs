//! One connection to one holder: calls with replies, and events.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use carpel_proto::holder::packet::Kind;
use carpel_proto::holder::reply::Result as Answer;
use carpel_proto::holder::request::Call;
use carpel_proto::holder::{self as wire, ContainerState, Hello, Packet, Request, event::What};
use prost::Message;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::error::HolderError;
use super::socket::Socket;
use super::spawn::SOCKET;

/// Longest wait for the making of something.
const ANSWER: Duration = Duration::from_secs(30);
/// For what a holder does at once.
const PROMPT: Duration = Duration::from_secs(10);
/// For a holder that left a call unanswered.
const SILENT: Duration = Duration::from_secs(2);
/// A holder that shuts down waits up to 10 s for its processes.
const SHUTDOWN: Duration = Duration::from_secs(20);

type Reply = Result<(Answer, Vec<OwnedFd>), HolderError>;

/// Handle on the connection; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct HolderClient {
    outgoing: mpsc::Sender<Outgoing>,
    /// A call was not answered in time, and nothing came since.
    silent: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Outgoing {
    call: Call,
    fds: Vec<OwnedFd>,
    reply: oneshot::Sender<Reply>,
    /// Told the exit code of the exec that this call starts.
    exec: Option<(String, oneshot::Sender<i32>)>,
}

/// In the order the holder told them; `Gone` is the last.
#[derive(Debug)]
pub(crate) enum HolderEvent {
    ContainerExited(ContainerState),
    PodInitExited,
    Gone,
}

#[derive(Debug)]
pub(crate) struct Connected {
    pub(crate) client: HolderClient,
    pub(crate) hello: Hello,
    pub(crate) netns: Option<OwnedFd>,
    pub(crate) events: mpsc::UnboundedReceiver<HolderEvent>,
}

/// Connects to the holder of the pod whose run directory is `dir`.
pub(crate) async fn connect(dir: &Path, limit: Duration) -> Result<Connected, HolderError> {
    let greeting = async {
        let socket = Socket::connect(dir, SOCKET).map_err(|error| lost(&error))?;
        let (packet, fds) = receive(&socket).await?;
        let Some(Kind::Hello(hello)) = packet.kind else {
            return Err(HolderError::Internal(
                "the holder's first packet is no greeting".into(),
            ));
        };
        Ok((socket, hello, fds))
    };
    let (socket, hello, mut fds) =
        timeout(limit, greeting)
            .await
            .map_err(|_| HolderError::Deadline {
                what: "greet".into(),
                after: limit,
            })??;
    let netns = hello.netns_fd.and_then(|i| take_fd(&mut fds, i));
    let (outgoing, calls) = mpsc::channel(64);
    let silent = Arc::new(AtomicBool::new(false));
    let (events, receiver) = mpsc::unbounded_channel();
    let connection = Connection {
        socket,
        events,
        pending: HashMap::new(),
        execs: HashMap::new(),
        next_id: 1,
        silent: Arc::clone(&silent),
    };
    tokio::spawn(connection.run(calls));
    Ok(Connected {
        client: HolderClient { outgoing, silent },
        hello,
        netns,
        events: receiver,
    })
}

fn take_fd(fds: &mut Vec<OwnedFd>, index: u32) -> Option<OwnedFd> {
    let index = index as usize;
    (index < fds.len()).then(|| fds.swap_remove(index))
}

impl HolderClient {
    async fn call(&self, what: &str, call: Call, fds: Vec<OwnedFd>) -> Reply {
        self.call_with(what, ANSWER, call, fds, None).await
    }

    async fn call_with(
        &self,
        what: &str,
        limit: Duration,
        call: Call,
        fds: Vec<OwnedFd>,
        exec: Option<(String, oneshot::Sender<i32>)>,
    ) -> Reply {
        let (reply, answer) = oneshot::channel();
        let exchange = async {
            let outgoing = Outgoing {
                call,
                fds,
                reply,
                exec,
            };
            self.outgoing
                .send(outgoing)
                .await
                .map_err(|_| HolderError::Gone)?;
            answer.await.map_err(|_| HolderError::Gone)?
        };
        let after = if self.silent.load(Ordering::Relaxed) {
            SILENT
        } else {
            limit
        };
        timeout(after, exchange).await.unwrap_or_else(|_| {
            self.silent.store(true, Ordering::Relaxed);
            Err(HolderError::Deadline {
                what: what.into(),
                after,
            })
        })
    }

    async fn order(&self, what: &str, call: Call, fds: Vec<OwnedFd>) -> Result<(), HolderError> {
        self.order_within(PROMPT, what, call, fds).await
    }

    async fn order_within(
        &self,
        limit: Duration,
        what: &str,
        call: Call,
        fds: Vec<OwnedFd>,
    ) -> Result<(), HolderError> {
        match self.call_with(what, limit, call, fds, None).await? {
            (Answer::Done(_), _) => Ok(()),
            (other, _) => Err(unexpected(&other)),
        }
    }

    /// Makes the pod's namespaces; gives the network namespace and the pod init's pid.
    pub(crate) async fn setup(
        &self,
        setup: wire::Setup,
        cgroup_procs: Vec<OwnedFd>,
    ) -> Result<(Option<OwnedFd>, i32), HolderError> {
        match self
            .call("set the pod up", Call::Setup(setup), cgroup_procs)
            .await?
        {
            (Answer::Setup(done), mut fds) => {
                let netns = done.netns_fd.and_then(|i| take_fd(&mut fds, i));
                Ok((netns, done.pod_init_pid))
            }
            (other, _) => Err(unexpected(&other)),
        }
    }

    pub(crate) async fn create(
        &self,
        create: wire::CreateContainer,
        fds: Vec<OwnedFd>,
    ) -> Result<wire::Created, HolderError> {
        match self
            .call("create the container", Call::Create(create), fds)
            .await?
        {
            (Answer::Created(created), _) => Ok(created),
            (other, _) => Err(unexpected(&other)),
        }
    }

    /// Gives the time of the start, ns since the epoch.
    pub(crate) async fn start(
        &self,
        container_id: &str,
        runtime: Option<(wire::OciRuntime, OwnedFd)>,
    ) -> Result<i64, HolderError> {
        let (oci, fds) = runtime.unzip();
        let call = Call::Start(wire::StartContainer {
            container_id: container_id.into(),
            oci,
        });
        let fds = fds.into_iter().collect();
        match self.call("start the container", call, fds).await? {
            (Answer::Started(started), _) => Ok(started.started_at_ns),
            (other, _) => Err(unexpected(&other)),
        }
    }

    pub(crate) async fn signal(
        &self,
        container_id: &str,
        signal: i32,
        all: bool,
    ) -> Result<(), HolderError> {
        let call = wire::Signal {
            container_id: container_id.into(),
            signal,
            all,
        };
        self.order("signal the container", Call::Signal(call), Vec::new())
            .await
    }

    pub(crate) async fn delete(&self, container_id: &str) -> Result<(), HolderError> {
        let call = wire::DeleteContainer {
            container_id: container_id.into(),
        };
        self.order("delete the container", Call::Delete(call), Vec::new())
            .await
    }

    pub(crate) async fn reopen_log(
        &self,
        container_id: &str,
        log: OwnedFd,
    ) -> Result<(), HolderError> {
        let call = wire::ReopenLog {
            container_id: container_id.into(),
            log_fd: 0,
        };
        self.order("reopen the log", Call::ReopenLog(call), vec![log])
            .await
    }

    /// Starts an exec; the receiver gets its exit code, or fails when the holder is gone.
    pub(crate) async fn exec(
        &self,
        exec: wire::Exec,
        fds: Vec<OwnedFd>,
    ) -> Result<oneshot::Receiver<i32>, HolderError> {
        let (sender, exit) = oneshot::channel();
        let watch = Some((exec.exec_id.clone(), sender));
        match self
            .call_with("start the command", ANSWER, Call::Exec(exec), fds, watch)
            .await?
        {
            (Answer::Exec(_), _) => Ok(exit),
            (other, _) => Err(unexpected(&other)),
        }
    }

    pub(crate) async fn signal_exec(&self, exec_id: &str, signal: i32) -> Result<(), HolderError> {
        let call = wire::SignalExec {
            exec_id: exec_id.into(),
            signal,
        };
        self.order("signal the command", Call::SignalExec(call), Vec::new())
            .await
    }

    /// Ends the pod's processes and the holder; returns when it is gone.
    pub(crate) async fn shutdown(&self) -> Result<(), HolderError> {
        let call = Call::Shutdown(wire::Shutdown {});
        match self
            .order_within(SHUTDOWN, "shut down", call, Vec::new())
            .await
        {
            Ok(()) | Err(HolderError::Gone) => {}
            Err(error) => return Err(error),
        }
        let gone = timeout(PROMPT, self.outgoing.closed()).await;
        gone.map_err(|_| HolderError::Deadline {
            what: "end".into(),
            after: PROMPT,
        })
    }
}

fn unexpected(answer: &Answer) -> HolderError {
    HolderError::Internal(format!(
        "the holder gave an answer to another question: {answer:?}"
    ))
}

struct Pending {
    reply: oneshot::Sender<Reply>,
    exec: Option<String>,
}

struct Connection {
    socket: Socket,
    events: mpsc::UnboundedSender<HolderEvent>,
    pending: HashMap<u64, Pending>,
    execs: HashMap<String, oneshot::Sender<i32>>,
    next_id: u64,
    silent: Arc<AtomicBool>,
}

impl Connection {
    async fn run(mut self, mut calls: mpsc::Receiver<Outgoing>) {
        loop {
            tokio::select! {
                packet = receive(&self.socket) => match packet {
                    Ok((packet, fds)) => {
                        self.silent.store(false, Ordering::Relaxed);
                        self.take(packet, fds);
                    }
                    Err(_) => break,
                },
                call = calls.recv() => match call {
                    Some(call) => if !self.send(call).await { break },
                    None => break,
                },
            }
        }
        calls.close();
        for (_, pending) in self.pending.drain() {
            drop(pending.reply.send(Err(HolderError::Gone)));
        }
        drop(self.events.send(HolderEvent::Gone));
    }

    /// Whether the connection still stands.
    async fn send(&mut self, out: Outgoing) -> bool {
        let id = self.next_id;
        self.next_id += 1;
        let bytes = Request {
            id,
            call: Some(out.call),
        }
        .encode_to_vec();
        if bytes.len() > wire::MAX_PACKET || out.fds.len() > wire::MAX_FDS {
            let text = format!(
                "request of {} bytes and {} descriptors is over the limit of {} and {}",
                bytes.len(),
                out.fds.len(),
                wire::MAX_PACKET,
                wire::MAX_FDS
            );
            drop(out.reply.send(Err(HolderError::Invalid(text))));
            return true;
        }
        let exec = out.exec.map(|(exec, exit)| {
            self.execs.insert(exec.clone(), exit);
            exec
        });
        self.pending.insert(
            id,
            Pending {
                reply: out.reply,
                exec,
            },
        );
        self.socket.send(&bytes, &out.fds).await.is_ok()
    }

    fn take(&mut self, packet: Packet, fds: Vec<OwnedFd>) {
        match packet.kind {
            Some(Kind::Reply(reply)) => {
                let Some(pending) = self.pending.remove(&reply.id) else {
                    return;
                };
                if let (Some(exec), Some(Answer::Error(_))) = (&pending.exec, &reply.result) {
                    self.execs.remove(exec);
                }
                let result = match reply.result {
                    Some(Answer::Error(error)) => Err(error.into()),
                    Some(answer) => Ok((answer, fds)),
                    None => Err(HolderError::Internal("the holder's reply is empty".into())),
                };
                drop(pending.reply.send(result));
            }
            Some(Kind::Event(event)) => self.event(event.what),
            Some(Kind::Hello(_)) | None => {}
        }
    }

    fn event(&mut self, what: Option<What>) {
        match what {
            Some(What::ContainerExited(state)) => {
                self.events.send(HolderEvent::ContainerExited(state)).ok();
            }
            Some(What::ExecExited(exited)) => {
                if let Some(exit) = self.execs.remove(&exited.exec_id) {
                    exit.send(exited.exit_code).ok();
                }
            }
            Some(What::PodInitExited(_)) => {
                self.events.send(HolderEvent::PodInitExited).ok();
            }
            None => {}
        }
    }
}

async fn receive(socket: &Socket) -> Result<(Packet, Vec<OwnedFd>), HolderError> {
    let (bytes, fds) = socket.receive().await.map_err(|error| lost(&error))?;
    if bytes.is_empty() {
        return Err(HolderError::Gone);
    }
    let packet = Packet::decode(&bytes[..]).map_err(|error| {
        HolderError::Internal(format!("the holder's packet is garbage: {error}"))
    })?;
    Ok((packet, fds))
}

/// Nobody is there, or we cannot tell: only the first says that the pod is over.
fn lost(error: &io::Error) -> HolderError {
    match error.kind() {
        io::ErrorKind::NotFound
        | io::ErrorKind::ConnectionRefused
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::BrokenPipe => HolderError::Gone,
        _ if matches!(error.raw_os_error(), Some(EMFILE | ENFILE)) => {
            HolderError::Exhausted(format!("connect to the pod's holder: {error}"))
        }
        _ => HolderError::Internal(format!("the connection to the pod's holder: {error}")),
    }
}

const EMFILE: i32 = rustix::io::Errno::MFILE.raw_os_error();
const ENFILE: i32 = rustix::io::Errno::NFILE.raw_os_error();

#[cfg(test)]
mod tests {
    use std::io;

    use super::{EMFILE, HolderError, lost};

    #[test]
    fn our_own_want_of_descriptors_is_not_the_end_of_a_holder() {
        let gone = lost(&io::ErrorKind::ConnectionRefused.into());
        assert!(matches!(gone, HolderError::Gone), "{gone}");
        let full = lost(&io::Error::from_raw_os_error(EMFILE));
        assert!(matches!(full, HolderError::Exhausted(_)), "{full}");
        let spoilt = lost(&io::ErrorKind::InvalidData.into());
        assert!(matches!(spoilt, HolderError::Internal(_)), "{spoilt}");
    }
}
