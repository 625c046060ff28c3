//! What the holder waits for: descriptors and deadlines.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;

/// Events taken from the kernel at once.
const BATCH: usize = 32;

/// What has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Listener,
    Connection,
    Children,
    PodInit,
    Worker,
    Stdout,
    Stderr,
    Outcome,
    ContainerExit,
    ExecExit,
    SetupDeadline,
    WorkerDeadline,
    ContainerTimer,
    ExecTimer,
    ReopenDeadline,
    ShutdownTimer,
}

const KINDS: [Kind; 16] = [
    Kind::Listener,
    Kind::Connection,
    Kind::Children,
    Kind::PodInit,
    Kind::Worker,
    Kind::Stdout,
    Kind::Stderr,
    Kind::Outcome,
    Kind::ContainerExit,
    Kind::ExecExit,
    Kind::SetupDeadline,
    Kind::WorkerDeadline,
    Kind::ContainerTimer,
    Kind::ExecTimer,
    Kind::ReopenDeadline,
    Kind::ShutdownTimer,
];

/// What has happened to whom. Keys are never used twice, so that an event of
/// something gone finds nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Token {
    pub(crate) kind: Kind,
    pub(crate) key: u32,
}

impl Token {
    pub(crate) fn new(kind: Kind, key: u32) -> Self {
        Self { kind, key }
    }

    fn encode(self) -> EventData {
        EventData::new_u64((self.kind as u64) << 32 | u64::from(self.key))
    }

    fn decode(data: EventData) -> Option<Self> {
        let data = data.u64();
        let kind = KINDS.get(usize::try_from(data >> 32).ok()?)?;
        let key = u32::try_from(data & u64::from(u32::MAX)).ok()?;
        Some(Self::new(*kind, key))
    }
}

#[derive(Debug)]
pub(crate) struct Poll {
    epoll: OwnedFd,
    timers: BTreeMap<Token, Instant>,
}

impl Poll {
    pub(crate) fn new() -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        Ok(Self {
            epoll,
            timers: BTreeMap::new(),
        })
    }

    /// Tells when there is something to read, or the other side is gone.
    pub(crate) fn add(&self, fd: impl AsFd, kind: Kind, key: u32) -> io::Result<()> {
        let data = Token::new(kind, key).encode();
        Ok(epoll::add(&self.epoll, fd, data, EventFlags::IN)?)
    }

    /// Tells also, or no longer, when there is room to write.
    pub(crate) fn want_room(&self, fd: impl AsFd, kind: Kind, room: bool) -> io::Result<()> {
        let data = Token::new(kind, 0).encode();
        let mut flags = EventFlags::IN;
        flags.set(EventFlags::OUT, room);
        Ok(epoll::modify(&self.epoll, fd, data, flags)?)
    }

    /// Must come before a descriptor is closed that another process may also have.
    pub(crate) fn remove(&self, fd: impl AsFd) {
        // It fails only for what is not there.
        let _ = epoll::delete(&self.epoll, fd);
    }

    /// Tells after a time, once; replaces the timer of this token.
    pub(crate) fn arm(&mut self, after: Duration, kind: Kind, key: u32) {
        self.timers
            .insert(Token::new(kind, key), Instant::now() + after);
    }

    pub(crate) fn disarm(&mut self, kind: Kind, key: u32) {
        self.timers.remove(&Token::new(kind, key));
    }

    /// Waits and puts what has happened into `ready`.
    pub(crate) fn wait(&mut self, ready: &mut Vec<Token>) -> io::Result<()> {
        let mut events: [Event; BATCH] = [Event {
            flags: EventFlags::empty(),
            data: EventData::new_u64(0),
        }; BATCH];
        let wait = self.timers.values().min().map(|at| {
            let left = at.saturating_duration_since(Instant::now());
            Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            }
        });
        let count = match epoll::wait(&self.epoll, &mut events, wait.as_ref()) {
            Ok(count) => count,
            Err(Errno::INTR) => 0,
            Err(error) => return Err(error.into()),
        };
        ready.clear();
        ready.extend(events[..count].iter().filter_map(|e| Token::decode(e.data)));
        let now = Instant::now();
        while let Some(token) = self.due(now) {
            self.timers.remove(&token);
            ready.push(token);
        }
        Ok(())
    }

    fn due(&self, now: Instant) -> Option<Token> {
        let mut timers = self.timers.iter();
        timers.find(|(_, at)| **at <= now).map(|(token, _)| *token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_at_its_own_place() {
        for (index, kind) in KINDS.into_iter().enumerate() {
            assert_eq!(kind as usize, index);
            let token = Token::new(kind, u32::MAX - 1);
            assert_eq!(Token::decode(token.encode()), Some(token));
        }
        assert_eq!(Token::decode(EventData::new_u64(u64::MAX)), None);
    }

    #[test]
    fn descriptors_and_deadlines_are_told() {
        let mut poll = Poll::new().unwrap();
        let mut ready = Vec::new();
        let (read, write) = rustix::pipe::pipe().unwrap();
        poll.add(&read, Kind::Stdout, 7).unwrap();
        poll.arm(Duration::from_millis(5), Kind::ExecTimer, 3);
        poll.arm(Duration::from_millis(1), Kind::ExecTimer, 4);
        poll.disarm(Kind::ExecTimer, 4);
        poll.wait(&mut ready).unwrap();
        assert_eq!(ready, [Token::new(Kind::ExecTimer, 3)]);
        drop(write);
        poll.wait(&mut ready).unwrap();
        assert_eq!(ready, [Token::new(Kind::Stdout, 7)]);
    }
}
