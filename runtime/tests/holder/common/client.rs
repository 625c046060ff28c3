//! One connection to a holder.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use carpel_proto::holder::error::Code;
use carpel_proto::holder::event::What;
use carpel_proto::holder::packet::Kind;
pub(crate) use carpel_proto::holder::reply::Result as Answer;
use carpel_proto::holder::request::Call;
use carpel_proto::holder::{ContainerState, Event, Hello, Packet, Request};
use carpel_sys::seqpacket;
use prost::Message;
use rustix::net::sockopt::Timeout;

use super::PATIENCE;

/// A call that was answered by an error.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) code: Code,
    pub(crate) message: String,
}

pub(crate) struct Client {
    socket: OwnedFd,
    pub(crate) hello: Hello,
    pub(crate) netns: Option<OwnedFd>,
    events: Vec<Event>,
    next: u64,
}

impl Client {
    pub(crate) fn connect(path: &Path) -> Self {
        let socket = seqpacket::connect(path).unwrap();
        rustix::net::sockopt::set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE)).unwrap();
        let (kind, mut fds) = receive(&socket).expect("a greeting");
        let Kind::Hello(hello) = kind else {
            panic!("{kind:?}")
        };
        Self {
            socket,
            netns: fds.pop(),
            hello,
            events: Vec::new(),
            next: 1,
        }
    }

    pub(crate) fn send_raw(&self, packet: &[u8]) {
        seqpacket::send(&self.socket, packet, &[]).unwrap();
    }

    /// Whether the holder has ended this connection.
    pub(crate) fn is_closed(&self) -> bool {
        receive(&self.socket).is_none()
    }

    pub(crate) fn send(&mut self, call: Option<Call>, fds: &[OwnedFd]) -> u64 {
        let id = self.next;
        self.next += 1;
        let packet = Request { id, call }.encode_to_vec();
        let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        seqpacket::send(&self.socket, &packet, &fds).unwrap();
        id
    }

    /// Leaves, and never comes back.
    pub(crate) fn hang_up(&mut self) {
        rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both).unwrap();
    }

    /// Sends without an answer in mind; `false` when the connection has ended.
    pub(crate) fn try_send(&mut self, call: &Call) -> bool {
        let id = self.next;
        self.next += 1;
        let call = Some(call.clone());
        seqpacket::send(&self.socket, &Request { id, call }.encode_to_vec(), &[]).is_ok()
    }

    /// Takes whichever answer comes next.
    pub(crate) fn any_answer(&mut self) -> u64 {
        loop {
            match receive(&self.socket).expect("an answer") {
                (Kind::Reply(reply), _) => return reply.id,
                (Kind::Event(event), _) => self.events.push(event),
                (Kind::Hello(hello), _) => panic!("{hello:?}"),
            }
        }
    }

    pub(crate) fn call(
        &mut self,
        call: Call,
        fds: &[OwnedFd],
    ) -> Result<(Answer, Vec<OwnedFd>), Refused> {
        let id = self.send(Some(call), fds);
        self.answer(id)
    }

    pub(crate) fn answer(&mut self, id: u64) -> Result<(Answer, Vec<OwnedFd>), Refused> {
        loop {
            match receive(&self.socket).expect("an answer") {
                (Kind::Reply(reply), fds) => {
                    assert_eq!(reply.id, id, "{reply:?}");
                    return match reply.result.expect("a result") {
                        Answer::Error(error) => Err(Refused {
                            code: error.code(),
                            message: error.message,
                        }),
                        answer => Ok((answer, fds)),
                    };
                }
                (Kind::Event(event), _) => self.events.push(event),
                (Kind::Hello(hello), _) => panic!("{hello:?}"),
            }
        }
    }

    /// Takes the first event that `pick` wants, in whatever order others come.
    pub(crate) fn event<T>(&mut self, mut pick: impl FnMut(&What) -> Option<T>) -> T {
        let mut seen = 0;
        loop {
            while seen < self.events.len() {
                let what = self.events[seen].what.clone();
                if let Some(found) = what.as_ref().and_then(&mut pick) {
                    self.events.remove(seen);
                    return found;
                }
                seen += 1;
            }
            match receive(&self.socket).expect("an event") {
                (Kind::Event(event), _) => self.events.push(event),
                other => panic!("{other:?}"),
            }
        }
    }

    pub(crate) fn container_exit(&mut self, id: &str) -> ContainerState {
        self.event(|what| match what {
            What::ContainerExited(state) if state.container_id == id => Some(state.clone()),
            _ => None,
        })
    }

    pub(crate) fn exec_exit(&mut self, id: &str) -> i32 {
        self.event(|what| match what {
            What::ExecExited(exited) if exited.exec_id == id => Some(exited.exit_code),
            _ => None,
        })
    }
}

/// `None` at the end of the connection.
fn receive(socket: &OwnedFd) -> Option<(Kind, Vec<OwnedFd>)> {
    let mut buffer = vec![0; carpel_proto::holder::MAX_PACKET];
    match seqpacket::receive(socket, &mut buffer) {
        Ok(received) if received.len > 0 => {
            let packet = Packet::decode(&buffer[..received.len]).unwrap();
            Some((packet.kind.unwrap(), received.fds))
        }
        Ok(_) => None,
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => None,
        Err(error) => panic!("nothing came: {error}"),
    }
}
