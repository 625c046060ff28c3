//! The second container of the demo: asks the first over localhost and reads its log from a
//! volume that both mount.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::client;
use crate::server::say;

const EVERY: Duration = Duration::from_secs(1);

/// Prints each new line of the log, and what the page says when there is a URL. Does not end.
pub(crate) fn run(file: &Path, url: Option<&str>) -> io::Result<()> {
    let mut log = None;
    loop {
        if let Some(url) = url {
            match client::get(url) {
                Ok(body) => say(&format!("over localhost: {}", body.trim_end())),
                Err(error) => say(&format!("over localhost: {error}")),
            }
        }
        // The server makes the file when it starts, which may be after us.
        if log.is_none() {
            log = File::open(file).ok().map(BufReader::new);
        }
        if let Some(log) = &mut log {
            for line in new_lines(log)? {
                say(&format!("in the log: {line}"));
            }
        }
        thread::sleep(EVERY);
    }
}

fn new_lines(log: &mut impl BufRead) -> io::Result<Vec<String>> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if log.read_line(&mut line)? == 0 {
            return Ok(lines);
        }
        lines.push(line.trim_end().to_owned());
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn only_what_is_new() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let mut log = BufReader::new(file.reopen().unwrap());
        writeln!(file, "one\ntwo").unwrap();
        assert_eq!(new_lines(&mut log).unwrap(), ["one", "two"]);
        assert_eq!(new_lines(&mut log).unwrap(), [""; 0]);
        writeln!(file, "three").unwrap();
        assert_eq!(new_lines(&mut log).unwrap(), ["three"]);
    }
}
