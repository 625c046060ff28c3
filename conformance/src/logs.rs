//! Container logs as the CRI writes them.

use anyhow::{Context, ensure};

/// One line of a log file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    pub time: String,
    /// `stdout` or `stderr`.
    pub stream: String,
    /// The container had not ended the line here.
    pub partial: bool,
    pub text: String,
}

/// Reads a whole log file; anything that is not a log line is an error.
pub fn parse_log(content: &str) -> anyhow::Result<Vec<LogLine>> {
    ensure!(
        content.is_empty() || content.ends_with('\n'),
        "the last line has no end"
    );
    content
        .lines()
        .map(|line| parse_line(line).with_context(|| format!("{line:?}")))
        .collect()
}

fn parse_line(line: &str) -> anyhow::Result<LogLine> {
    let mut parts = line.splitn(4, ' ');
    let mut next = |what| parts.next().with_context(|| format!("no {what}"));
    let (time, stream) = (next("time")?, next("stream")?);
    let (tag, text) = (next("tag")?, next("text")?);
    ensure!(
        time.len() >= 20 && time.ends_with('Z') && time.contains('T'),
        "time {time:?}"
    );
    ensure!(matches!(stream, "stdout" | "stderr"), "stream {stream:?}");
    ensure!(matches!(tag, "P" | "F"), "tag {tag:?}");
    let (time, stream, text) = (time.to_owned(), stream.to_owned(), text.to_owned());
    Ok(LogLine {
        time,
        stream,
        partial: tag == "P",
        text,
    })
}

#[cfg(test)]
mod tests {
    use super::parse_log;

    #[test]
    fn reads_lines_and_refuses_what_is_none() {
        let lines = parse_log("2026-01-02T03:04:05.678901234Z stderr P a b\n").unwrap();
        assert_eq!(
            (lines[0].stream.as_str(), lines[0].partial),
            ("stderr", true)
        );
        assert_eq!(lines[0].text, "a b");
        for wrong in [
            "x",
            "2026-01-02T03:04:05Z stdout F cut",
            "yesterday stdout F a\n",
            "\n",
        ] {
            assert!(parse_log(wrong).is_err(), "{wrong:?}");
        }
    }
}
