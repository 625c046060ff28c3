//! `TIME STREAM TAG TEXT`: one piece of a line, and how pieces become lines again.

use jiff::Timestamp;

/// Pieces of one line are printed at the latest when this much has come together.
const MAX_LINE: usize = 1 << 20;

/// One whole line that a container wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// When its first piece was written, as it stands in the file.
    pub(crate) time: String,
    /// With its newline, unless the container wrote none.
    pub(crate) text: Vec<u8>,
}

impl Entry {
    /// Nanoseconds since 1970; `None` when the time cannot be read.
    pub(crate) fn nanoseconds(&self) -> Option<i128> {
        self.time
            .parse::<Timestamp>()
            .ok()
            .map(Timestamp::as_nanosecond)
    }
}

/// Joins the pieces of each stream.
#[derive(Debug, Default)]
pub(crate) struct Joiner {
    stdout: Option<Entry>,
    stderr: Option<Entry>,
}

impl Joiner {
    /// Takes a line of the file without its newline, and gives what is whole now.
    pub(crate) fn push(&mut self, line: &[u8]) -> Option<Entry> {
        let Some((time, stream, whole, text)) = split(line) else {
            // Not ours: shown as it is rather than lost.
            let mut text = line.to_vec();
            text.push(b'\n');
            return Some(Entry {
                time: String::new(),
                text,
            });
        };
        let pending = if stream == b"stderr" {
            &mut self.stderr
        } else {
            &mut self.stdout
        };
        let entry = pending.get_or_insert_with(|| Entry {
            time,
            text: Vec::new(),
        });
        entry.text.extend_from_slice(text);
        if whole {
            entry.text.push(b'\n');
        } else if entry.text.len() < MAX_LINE {
            return None;
        }
        pending.take()
    }

    /// What is left when nothing more will come.
    pub(crate) fn finish(&mut self) -> Vec<Entry> {
        self.stdout
            .take()
            .into_iter()
            .chain(self.stderr.take())
            .collect()
    }
}

/// Time, stream, whether the line ends here, and the text.
fn split(line: &[u8]) -> Option<(String, &[u8], bool, &[u8])> {
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let time = std::str::from_utf8(parts.next()?).ok()?.to_owned();
    let stream = parts
        .next()
        .filter(|stream| matches!(*stream, b"stdout" | b"stderr"))?;
    // Tags are joined by ':'; P is the only one with a meaning here.
    let tags = parts.next()?;
    let partial = tags.split(|byte| *byte == b':').any(|tag| tag == b"P");
    Some((time, stream, !partial, parts.next().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        let mut joiner = Joiner::default();
        let mut entries: Vec<Entry> = text
            .lines()
            .filter_map(|line| joiner.push(line.as_bytes()))
            .collect();
        entries.extend(joiner.finish());
        let text = |entry: Entry| String::from_utf8(entry.text).unwrap();
        entries.into_iter().map(text).collect()
    }

    #[test]
    fn pieces_are_joined_by_stream() {
        let text = "t1 stdout P a\nt2 stderr F x\nt3 stdout P b \nt4 stdout F c d\nt5 stdout F \n";
        assert_eq!(lines(text), ["x\n", "ab c d\n", "\n"]);
    }

    #[test]
    fn what_has_no_end_is_shown_at_the_end() {
        assert_eq!(lines("t stdout P a\n"), ["a"]);
        assert_eq!(lines("t stdout F\n"), ["\n"]);
    }

    #[test]
    fn a_line_that_is_no_log_is_shown_as_it_is() {
        assert_eq!(lines("hello\n"), ["hello\n"]);
    }

    #[test]
    fn the_time_is_that_of_the_first_piece() {
        let mut joiner = Joiner::default();
        assert_eq!(joiner.push(b"2026-11-23T10:00:00.5Z stdout P a"), None);
        let entry = joiner.push(b"2026-11-23T10:00:09Z stdout F b").unwrap();
        assert_eq!(entry.time, "2026-11-23T10:00:00.5Z");
        assert_eq!(entry.nanoseconds().unwrap() % 1_000_000_000, 500_000_000);
    }

    #[test]
    fn a_line_without_end_is_not_kept_forever() {
        let mut joiner = Joiner::default();
        let piece = format!("t stdout P {}", "x".repeat(MAX_LINE));
        assert_eq!(joiner.push(piece.as_bytes()).unwrap().text.len(), MAX_LINE);
    }
}
