//! From chunks of output to lines of a log, whatever the chunks.

/// Longest content of one log line; a longer line of output becomes several.
pub const LIMIT: usize = 16 * 1024;
/// A buffer that grew beyond this is given back when it is empty.
const KEPT: usize = 512;

/// Whether more of the same line of output follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tag {
    Partial,
    Full,
}

/// One log line's content, in two pieces: what earlier chunks left, and what this
/// chunk adds. Without the newline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    pub tag: Tag,
    pub head: &'a [u8],
    pub tail: &'a [u8],
}

impl Line<'_> {
    #[must_use]
    pub fn len(&self) -> usize {
        self.head.len() + self.tail.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Splits one stream of output.
///
/// For each chunk the lines are first looked at ([`Splitter::lines`]) and then left
/// behind ([`Splitter::advance`]). The result depends on the bytes alone and not on
/// how they came in chunks.
#[derive(Debug, Default)]
pub struct Splitter {
    /// Output that no newline has followed yet; at most `LIMIT` bytes.
    pending: Vec<u8>,
}

impl Splitter {
    /// The lines that are complete now that `chunk` has come.
    #[must_use]
    pub fn lines<'a>(&'a self, chunk: &'a [u8]) -> Lines<'a> {
        Lines {
            head: &self.pending,
            rest: chunk,
            cut: false,
        }
    }

    /// Keeps what of `chunk` the lines did not give; `left` is theirs at their end.
    pub fn advance(&mut self, chunk: &[u8], left: Left) {
        if left.cut {
            self.pending.clear();
        }
        self.pending
            .extend_from_slice(&chunk[chunk.len() - left.bytes..]);
        self.trim();
    }

    /// What the output ended with, without a newline.
    #[must_use]
    pub fn unfinished(&self) -> Option<Line<'_>> {
        (!self.pending.is_empty()).then_some(Line {
            tag: Tag::Full,
            head: &self.pending,
            tail: &[],
        })
    }

    /// Forgets the unfinished line.
    pub fn clear(&mut self) {
        self.pending.clear();
        self.trim();
    }

    fn trim(&mut self) {
        if self.pending.is_empty() && self.pending.capacity() > KEPT {
            self.pending = Vec::new();
        }
    }
}

/// Iterates over complete lines; what is left at its end is incomplete.
#[derive(Debug, Clone)]
pub struct Lines<'a> {
    head: &'a [u8],
    rest: &'a [u8],
    cut: bool,
}

/// How much of a chunk belongs to no line yet.
#[derive(Debug, Clone, Copy)]
pub struct Left {
    bytes: usize,
    /// There was a line, so what was pending before the chunk is in it.
    cut: bool,
}

impl Lines<'_> {
    #[must_use]
    pub fn left(&self) -> Left {
        Left {
            bytes: self.rest.len(),
            cut: self.cut,
        }
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = Line<'a>;

    fn next(&mut self) -> Option<Line<'a>> {
        let room = LIMIT - self.head.len();
        // One byte more than fits, so that a line of just the limit stays whole.
        let window = &self.rest[..self.rest.len().min(room + 1)];
        let (tag, len, skip) = match window.iter().position(|byte| *byte == b'\n') {
            Some(end) => (Tag::Full, end, end + 1),
            None if window.len() > room => (Tag::Partial, room, room),
            None => return None,
        };
        let line = Line {
            tag,
            head: self.head,
            tail: &self.rest[..len],
        };
        self.head = &[];
        self.cut = true;
        self.rest = &self.rest[skip..];
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split(chunks: &[&[u8]]) -> Vec<(Tag, Vec<u8>)> {
        let mut splitter = Splitter::default();
        let mut out = Vec::new();
        for chunk in chunks {
            let mut lines = splitter.lines(chunk);
            for line in &mut lines {
                out.push((line.tag, [line.head, line.tail].concat()));
            }
            let left = lines.left();
            splitter.advance(chunk, left);
        }
        if let Some(line) = splitter.unfinished() {
            out.push((line.tag, line.head.to_vec()));
        }
        out
    }

    #[test]
    fn lines_are_cut_at_newlines() {
        let lines = split(&[b"one\ntw", b"o\n\nthree"]);
        let text: Vec<_> = lines.iter().map(|(_, line)| line.as_slice()).collect();
        assert_eq!(text, [&b"one"[..], b"two", b"", b"three"]);
        assert!(lines.iter().all(|(tag, _)| *tag == Tag::Full));
    }

    #[test]
    fn a_line_of_just_the_limit_is_whole() {
        let line = [vec![b'x'; LIMIT], vec![b'\n']].concat();
        assert_eq!(split(&[&line]).len(), 1);
        assert_eq!(split(&[&line[..LIMIT], b"\n"]).len(), 1);
        let longer = [vec![b'x'; LIMIT + 1], vec![b'\n']].concat();
        let lines = split(&[&longer]);
        assert_eq!((lines[0].0, lines[0].1.len()), (Tag::Partial, LIMIT));
        assert_eq!((lines[1].0, lines[1].1.len()), (Tag::Full, 1));
    }

    #[test]
    fn memory_of_a_long_line_is_given_back() {
        let mut splitter = Splitter::default();
        for chunk in [&vec![b'x'; LIMIT][..], b"\n"] {
            let mut lines = splitter.lines(chunk);
            lines.by_ref().for_each(drop);
            let left = lines.left();
            splitter.advance(chunk, left);
            assert!(chunk == b"\n" || splitter.pending.len() == LIMIT);
        }
        assert!(splitter.pending.capacity() <= KEPT);
    }

    /// Mostly short lines, some around the limit.
    fn output() -> impl Strategy<Value = Vec<u8>> {
        let length = prop_oneof![
            8 => 0..200usize,
            1 => LIMIT - 2..LIMIT + 3,
            1 => 2 * LIMIT - 1..2 * LIMIT + 2,
        ];
        prop::collection::vec((any::<u8>(), length), 0..12).prop_map(|lines| {
            let mut bytes = Vec::new();
            for (byte, len) in lines {
                let byte = if byte == b'\n' { b'x' } else { byte };
                bytes.extend(std::iter::repeat_n(byte, len));
                bytes.push(b'\n');
            }
            bytes.pop();
            bytes
        })
    }

    proptest! {
        #[test]
        fn any_chunking_gives_the_same_lines(
            bytes in output(),
            cuts in prop::collection::vec(1..20_000usize, 1..30),
        ) {
            let mut chunks = Vec::new();
            let mut rest = &bytes[..];
            for cut in cuts {
                let (chunk, after) = rest.split_at(cut.min(rest.len()));
                chunks.push(chunk);
                rest = after;
            }
            chunks.push(rest);
            let lines = split(&chunks);
            prop_assert_eq!(&lines, &split(&[&bytes]));
            prop_assert!(lines.iter().all(|(_, line)| line.len() <= LIMIT));

            let mut whole = Vec::new();
            for (tag, line) in &lines {
                whole.extend_from_slice(line);
                if *tag == Tag::Full {
                    whole.push(b'\n');
                }
            }
            if whole.len() > bytes.len() {
                whole.pop();
            }
            prop_assert_eq!(whole, bytes);
        }
    }
}
