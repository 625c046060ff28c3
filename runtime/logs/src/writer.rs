//! Puts the output of one container into its log file.

use std::io::IoSlice;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;

use crate::splitter::{Line, Splitter, Tag};
use crate::stamp::Stamp;

/// Log lines in one `writev`.
const BATCH: usize = 128;
/// Pieces of a line: its head, two of content, the newline.
const PIECES: usize = 4;
/// `<time> <stdout|stderr> <tag> `
const HEAD: usize = 40;

/// Where a container's output comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

/// Whether a new file has taken the old one's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reopen {
    Done,
    /// A line is being written in parts; the old file gets the rest of it.
    Waiting,
}

/// Splits, stamps and writes; a file that cannot be written costs lines, counted.
#[derive(Debug, Default)]
pub struct Writer {
    file: Option<OwnedFd>,
    next: Option<OwnedFd>,
    stamp: Stamp,
    channels: [Channel; 2],
    written: u64,
    dropped: u64,
}

/// One stream of a log.
#[derive(Debug, Default)]
struct Channel {
    splitter: Splitter,
    /// The last line in the file is a part that others follow.
    open: bool,
    /// What follows that part was lost: an empty last part must end it.
    torn: bool,
    /// The beginning of the current line was lost: its rest is dropped too.
    skip: bool,
}

impl Writer {
    /// Without a file output is taken and forgotten.
    #[must_use]
    pub fn new(file: Option<OwnedFd>) -> Self {
        Self {
            file,
            ..Self::default()
        }
    }

    /// Content bytes that are in the files.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Content bytes that no file took.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Takes a chunk of output.
    pub fn write(&mut self, stream: Stream, chunk: &[u8]) {
        let Some(file) = &self.file else { return };
        let channel = &mut self.channels[stream as usize];
        let splitter = std::mem::take(&mut channel.splitter);
        let mut lines = splitter.lines(chunk);
        let heads = Heads::new(self.stamp.now(), stream);
        loop {
            let mut batch = Batch::new(&heads);
            self.dropped += channel.fill(&mut batch, &mut lines);
            if batch.is_empty() {
                break;
            }
            let outcome = batch.write(file);
            self.written += outcome.written;
            self.dropped += outcome.dropped;
            channel.note(&outcome);
        }
        let left = lines.left();
        channel.splitter = splitter;
        channel.splitter.advance(chunk, left);
        self.swap_between_lines();
    }

    /// Takes the end of a stream: its last line may lack a newline.
    pub fn finish(&mut self, stream: Stream) {
        let Some(file) = &self.file else { return };
        let channel = &mut self.channels[stream as usize];
        let splitter = std::mem::take(&mut channel.splitter);
        let heads = Heads::new(self.stamp.now(), stream);
        let mut batch = Batch::new(&heads);
        self.dropped += channel.fill(&mut batch, &mut splitter.unfinished().into_iter());
        if channel.torn && batch.is_empty() {
            batch.push(END);
        }
        if batch.is_empty() {
            return;
        }
        let outcome = batch.write(file);
        self.written += outcome.written;
        self.dropped += outcome.dropped;
        channel.note(&outcome);
        self.swap_between_lines();
    }

    /// Changes to a new file, at once if no line is half in the old one.
    pub fn reopen(&mut self, file: OwnedFd) -> Reopen {
        self.next = Some(file);
        self.swap_between_lines();
        match self.next {
            None => Reopen::Done,
            Some(_) => Reopen::Waiting,
        }
    }

    /// Whether the new file of [`Writer::reopen`] still waits for the end of a line.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.next.is_some()
    }

    /// Changes to the new file now; lines half written end where they are.
    pub fn reopen_now(&mut self) {
        for channel in &mut self.channels {
            channel.torn |= channel.open;
        }
        self.swap_between_lines();
    }

    fn swap_between_lines(&mut self) {
        if self.next.is_none() || self.channels.iter().any(|c| c.open && !c.torn) {
            return;
        }
        for stream in [Stream::Stdout, Stream::Stderr] {
            let channel = &mut self.channels[stream as usize];
            if let (true, Some(file)) = (channel.torn, &self.file) {
                let heads = Heads::new(self.stamp.now(), stream);
                let mut batch = Batch::new(&heads);
                batch.push(END);
                batch.write(file);
            }
            (channel.open, channel.torn) = (false, false);
        }
        self.file = self.next.take();
    }
}

/// The empty last part of a line.
const END: Line<'static> = Line {
    tag: Tag::Full,
    head: &[],
    tail: &[],
};

impl Channel {
    /// Takes lines into the batch until it is full; returns the bytes of those that
    /// belong to a line whose beginning was lost.
    fn fill<'a>(
        &mut self,
        batch: &mut Batch<'a>,
        lines: &mut impl Iterator<Item = Line<'a>>,
    ) -> u64 {
        let mut dropped = 0;
        while batch.has_room() {
            let Some(line) = lines.next() else { break };
            if self.skip {
                dropped += line.len() as u64;
                self.skip = line.tag == Tag::Partial;
                continue;
            }
            if self.torn && batch.is_empty() {
                batch.push(END);
            }
            batch.push(line);
        }
        dropped
    }

    fn note(&mut self, outcome: &Outcome) {
        if let Some(tag) = outcome.last_written {
            self.open = tag == Tag::Partial;
            self.torn = false;
        }
        if let Some(tag) = outcome.last_dropped {
            self.torn = self.open;
            self.skip = tag == Tag::Partial;
        }
    }
}

/// What stands before the content of a line, for a whole batch of one stream.
struct Heads {
    full: [u8; HEAD],
    partial: [u8; HEAD],
}

impl Heads {
    fn new(time: &[u8], stream: Stream) -> Self {
        let mut full = *b"0000-00-00T00:00:00.000000000Z stdout F ";
        full[..time.len()].copy_from_slice(time);
        if stream == Stream::Stderr {
            full[31..37].copy_from_slice(b"stderr");
        }
        let mut partial = full;
        partial[HEAD - 2] = b'P';
        Self { full, partial }
    }
}

/// Lines that go to the file in one call.
struct Batch<'a> {
    heads: &'a Heads,
    pieces: [IoSlice<'a>; BATCH * PIECES],
    lines: [(Tag, usize); BATCH],
    len: usize,
}

/// What became of a batch: a first part of it written, the rest dropped.
#[derive(Default)]
struct Outcome {
    written: u64,
    dropped: u64,
    last_written: Option<Tag>,
    last_dropped: Option<Tag>,
}

impl<'a> Batch<'a> {
    fn new(heads: &'a Heads) -> Self {
        Self {
            heads,
            pieces: [IoSlice::new(&[]); BATCH * PIECES],
            lines: [(Tag::Full, 0); BATCH],
            len: 0,
        }
    }

    fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// For a line and the empty part before it.
    fn has_room(&self) -> bool {
        self.len + 2 <= BATCH
    }

    fn push(&mut self, line: Line<'a>) {
        let head = match line.tag {
            Tag::Full => &self.heads.full,
            Tag::Partial => &self.heads.partial,
        };
        let pieces = [head, line.head, line.tail, b"\n"].map(IoSlice::new);
        self.pieces[self.len * PIECES..][..PIECES].copy_from_slice(&pieces);
        self.lines[self.len] = (line.tag, line.len());
        self.len += 1;
    }

    fn write(mut self, file: &OwnedFd) -> Outcome {
        let lines = self.lines;
        let lines = &lines[..self.len];
        let total: usize = lines.iter().map(|(_, len)| len + HEAD + 1).sum();
        let mut done = 0;
        let mut rest = &mut self.pieces[..self.len * PIECES];
        while done < total {
            match rustix::io::writev(file, rest) {
                Ok(n) if n > 0 => {
                    done += n;
                    IoSlice::advance_slices(&mut rest, n);
                }
                Err(Errno::INTR) => {}
                _ => break,
            }
        }
        let mut outcome = Outcome::default();
        for (tag, len) in lines {
            if let Some(after) = done.checked_sub(len + HEAD + 1)
                && outcome.last_dropped.is_none()
            {
                done = after;
                outcome.written += *len as u64;
                outcome.last_written = Some(*tag);
            } else {
                outcome.dropped += *len as u64;
                outcome.last_dropped = Some(*tag);
            }
        }
        if outcome.last_dropped.is_some() && done > 0 {
            cut(file, done as u64);
        }
        outcome
    }
}

/// Takes the beginning of a line away that could not be written whole.
fn cut(file: &OwnedFd, bytes: u64) {
    let Ok(stat) = rustix::fs::fstat(file.as_fd()) else {
        return;
    };
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    if let Some(size) = size.checked_sub(bytes) {
        // Where even this fails the reader gets one line too short: no better way.
        let _ = rustix::fs::ftruncate(file, size);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::splitter::LIMIT;
    use carpel_sys::mount;
    use rustix::fs::{Mode, OFlags};
    use std::fs::File;
    use std::io::Read;

    const MODE: OFlags = OFlags::RDWR
        .union(OFlags::APPEND)
        .union(OFlags::CREATE)
        .union(OFlags::CLOEXEC);

    fn dir(size: u64) -> OwnedFd {
        mount::tmpfs(Some(size), 0o700, mount::Flags::NONE).unwrap()
    }

    fn open(dir: &OwnedFd, name: &str) -> OwnedFd {
        rustix::fs::openat(dir, name, MODE, Mode::RUSR | Mode::WUSR).unwrap()
    }

    /// Stream, tag and content of each line; checks the form and the times.
    fn lines(dir: &OwnedFd, name: &str) -> Vec<(String, String, String)> {
        let mut text = String::new();
        let mut file = File::from(open(dir, name));
        file.read_to_string(&mut text).unwrap();
        assert!(text.is_empty() || text.ends_with('\n'));
        let mut last = String::new();
        text.lines()
            .map(|line| {
                let mut fields = line.splitn(4, ' ').map(str::to_owned);
                let mut field = || fields.next().unwrap();
                let time = field();
                assert!(time.len() == 30 && time.ends_with('Z') && time >= last);
                last = time;
                (field(), field(), field())
            })
            .collect()
    }

    fn line(stream: &str, tag: &str, content: &str) -> (String, String, String) {
        (stream.into(), tag.into(), content.into())
    }

    #[test]
    fn streams_are_kept_apart() {
        let dir = dir(1 << 20);
        let mut writer = Writer::new(Some(open(&dir, "log")));
        writer.write(Stream::Stdout, b"one\nhal");
        writer.write(Stream::Stderr, b"oops\n");
        writer.write(Stream::Stdout, b"f\n\nend");
        writer.finish(Stream::Stdout);
        writer.finish(Stream::Stderr);
        let expected = [
            line("stdout", "F", "one"),
            line("stderr", "F", "oops"),
            line("stdout", "F", "half"),
            line("stdout", "F", ""),
            line("stdout", "F", "end"),
        ];
        assert_eq!(lines(&dir, "log"), expected);
        assert_eq!((writer.written(), writer.dropped()), (14, 0));
    }

    #[test]
    fn more_lines_than_a_batch_are_all_written() {
        let dir = dir(4 << 20);
        let mut writer = Writer::new(Some(open(&dir, "log")));
        writer.write(Stream::Stdout, "x\n".repeat(3 * BATCH + 1).as_bytes());
        assert_eq!(lines(&dir, "log").len(), 3 * BATCH + 1);
    }

    #[test]
    fn without_a_file_output_is_forgotten() {
        let mut writer = Writer::new(None);
        writer.write(Stream::Stdout, b"one\n");
        writer.finish(Stream::Stdout);
        assert_eq!((writer.written(), writer.dropped()), (0, 0));
    }

    #[test]
    fn a_full_disk_costs_whole_lines_and_is_counted() {
        let dir = dir(16 << 10);
        let ballast = open(&dir, "ballast");
        rustix::io::write(&ballast, &[0; 8 << 10]).unwrap();
        let mut writer = Writer::new(Some(open(&dir, "log")));
        for n in 0..200 {
            writer.write(Stream::Stdout, format!("{n:0100}\n").as_bytes());
        }
        let before = lines(&dir, "log").len() as u64;
        assert!(before > 10 && before < 100, "{before}");
        assert_eq!(writer.written(), before * 100);
        assert_eq!(writer.written() + writer.dropped(), 200 * 100);
        rustix::fs::ftruncate(&ballast, 0).unwrap();
        writer.write(Stream::Stdout, b"after\n");
        let all = lines(&dir, "log");
        assert_eq!(all.len() as u64, before + 1);
        assert_eq!(all.last().unwrap(), &line("stdout", "F", "after"));
    }

    #[test]
    fn a_long_line_that_lost_its_end_does_not_swallow_the_next() {
        let dir = dir(40 << 10);
        let mut writer = Writer::new(Some(open(&dir, "log")));
        let long = [vec![b'x'; 5 * LIMIT], b"\n".to_vec()].concat();
        for chunk in long.chunks(LIMIT) {
            writer.write(Stream::Stdout, chunk);
        }
        let before = lines(&dir, "log");
        assert!(!before.is_empty() && before.iter().all(|(_, tag, _)| tag == "P"));
        writer.write(Stream::Stdout, b"next\n");
        let after = lines(&dir, "log");
        assert_eq!(after[before.len()], line("stdout", "F", ""));
        assert_eq!(after[before.len() + 1], line("stdout", "F", "next"));
        let all = (5 * LIMIT + 4) as u64;
        assert_eq!(writer.written() + writer.dropped(), all);
    }

    #[test]
    fn the_rest_of_a_line_whose_beginning_was_lost_is_lost_too() {
        let dir = dir(8 << 10);
        let ballast = open(&dir, "ballast");
        rustix::io::write(&ballast, &[0; 8 << 10]).unwrap();
        let mut writer = Writer::new(Some(open(&dir, "log")));
        writer.write(Stream::Stdout, &vec![b'x'; LIMIT + 1]);
        assert_eq!(writer.dropped(), LIMIT as u64);
        rustix::fs::ftruncate(&ballast, 0).unwrap();
        writer.write(Stream::Stdout, b"rest\nwhole\n");
        assert_eq!(lines(&dir, "log"), [line("stdout", "F", "whole")]);
    }

    #[test]
    fn a_new_file_takes_over_between_lines() {
        let dir = dir(1 << 20);
        let mut writer = Writer::new(Some(open(&dir, "old")));
        writer.write(Stream::Stdout, b"one\ntw");
        assert_eq!(writer.reopen(open(&dir, "new")), Reopen::Done);
        writer.write(Stream::Stdout, b"o\n");
        assert_eq!(lines(&dir, "old"), [line("stdout", "F", "one")]);
        assert_eq!(lines(&dir, "new"), [line("stdout", "F", "two")]);
    }

    #[test]
    fn a_line_in_parts_ends_in_the_old_file() {
        let dir = dir(1 << 20);
        let mut writer = Writer::new(Some(open(&dir, "old")));
        writer.write(Stream::Stderr, &vec![b'x'; LIMIT + 1]);
        assert_eq!(writer.reopen(open(&dir, "new")), Reopen::Waiting);
        writer.write(Stream::Stderr, b"y\n");
        assert!(!writer.is_waiting());
        writer.write(Stream::Stderr, b"next\n");
        assert_eq!(lines(&dir, "old")[1], line("stderr", "F", "xy"));
        assert_eq!(lines(&dir, "new"), [line("stderr", "F", "next")]);
    }

    #[test]
    fn a_line_in_parts_that_does_not_end_is_ended() {
        let dir = dir(1 << 20);
        let mut writer = Writer::new(Some(open(&dir, "old")));
        writer.write(Stream::Stderr, &vec![b'x'; LIMIT + 1]);
        assert_eq!(writer.reopen(open(&dir, "new")), Reopen::Waiting);
        writer.reopen_now();
        assert!(!writer.is_waiting());
        writer.write(Stream::Stderr, b"y\n");
        assert_eq!(lines(&dir, "old")[1], line("stderr", "F", ""));
        assert_eq!(lines(&dir, "new"), [line("stderr", "F", "xy")]);
    }
}
