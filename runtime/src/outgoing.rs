//! Replies, events, and the greeting of a new connection.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use carpel_proto::holder::event::What;
use carpel_proto::holder::packet::Kind as PacketKind;
use carpel_proto::holder::reply::Result as Answer;
use carpel_proto::holder::{Event, Hello, PROTOCOL, Packet, Reply};
use carpel_sys::seqpacket;

use crate::cgroup::KILL;
use crate::connection::{Connection, Origin};
use crate::error::Error;
use crate::holder::Holder;
use crate::poll::Kind;

impl Holder {
    /// Takes a new connection; the one before, if any, ends: there is one daemon.
    pub(crate) fn on_listener(&mut self) {
        let Ok(socket) = seqpacket::accept(&self.listener) else {
            return;
        };
        if !seqpacket::peer_uid(&socket).is_ok_and(|uid| uid == 0) {
            return;
        }
        self.disconnect();
        if self.poll.add(&socket, Kind::Connection, 0).is_err() {
            return;
        }
        let serial = self.next_key();
        self.connection = Some(Connection::new(socket, serial));
        let hello = self.hello();
        let netns = self.pod.as_ref().and_then(|pod| pod.netns.as_ref());
        let netns = netns.and_then(|fd| fd.try_clone().ok());
        self.send(PacketKind::Hello(hello), netns.as_ref());
    }

    fn hello(&self) -> Hello {
        let pod = self.pod.as_ref();
        let known = self.containers.values().filter(|c| c.announced);
        Hello {
            protocol: PROTOCOL,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pod_id: pod.map(|pod| pod.id.clone()).unwrap_or_default(),
            last_seq: self.last_seq,
            containers: known.map(super::container::Container::state).collect(),
            pod_init_pid: pod.and_then(|pod| pod.init.as_ref()).map_or(0, |i| i.pid),
            netns_fd: pod.and_then(|pod| pod.netns.as_ref()).map(|_| 0),
        }
    }

    pub(crate) fn reply(&mut self, origin: Origin, answer: Answer) {
        self.reply_with(origin, answer, None);
    }

    /// Replies to whoever asked, unless that connection has gone.
    pub(crate) fn reply_with(&mut self, origin: Origin, answer: Answer, fd: Option<&OwnedFd>) {
        if self.is_connected(origin.connection) {
            let reply = Reply {
                id: origin.request,
                result: Some(answer),
            };
            self.send(PacketKind::Reply(reply), fd);
        }
    }

    pub(crate) fn refuse(&mut self, origin: Origin, error: &Error) {
        self.reply(origin, Answer::Error(error.to_wire()));
    }

    /// Tells what has happened, to the daemon if there is one; the greeting of the
    /// next connection tells it again.
    pub(crate) fn tell(&mut self, what: What) {
        self.last_seq += 1;
        let event = Event {
            seq: self.last_seq,
            what: Some(what),
        };
        self.send(PacketKind::Event(event), None);
    }

    pub(crate) fn is_connected(&self, connection: u32) -> bool {
        let now = self.connection.as_ref();
        now.is_some_and(|now| now.serial == connection)
    }

    fn send(&mut self, kind: PacketKind, fd: Option<&OwnedFd>) {
        let Some(connection) = &mut self.connection else {
            return;
        };
        let packet = Packet { kind: Some(kind) };
        let fd: Option<BorrowedFd<'_>> = fd.map(AsFd::as_fd);
        if connection.send(&packet, fd).is_err() {
            return self.disconnect();
        }
        self.watch_room();
    }

    pub(crate) fn watch_room(&mut self) {
        if let Some(connection) = &self.connection {
            let room = connection.is_behind();
            let watched = self.poll.want_room(connection, Kind::Connection, room);
            if watched.is_err() {
                self.disconnect();
            }
        }
    }

    /// Ends the connection, and the execs that end with it.
    pub(crate) fn disconnect(&mut self) {
        let Some(connection) = self.connection.take() else {
            return;
        };
        self.poll.remove(&connection);
        let ended = self.execs.values_mut();
        for exec in ended.filter(|exec| exec.kill_on_disconnect) {
            exec.signal(KILL);
        }
    }
}
