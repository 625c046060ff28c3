//! A log file that may grow, be rotated, or be cut while it is read.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

const CHUNK: usize = 64 << 10;

/// An open log and how far it has been read.
#[derive(Debug)]
pub(crate) struct LogFile {
    path: PathBuf,
    file: File,
    position: u64,
    /// The beginning of a line whose end is not written yet.
    rest: Vec<u8>,
}

impl LogFile {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        Ok(Self {
            path: path.to_owned(),
            file,
            position: 0,
            rest: Vec::new(),
        })
    }

    /// Hands out every line that is complete by now, following the file to its successor.
    pub(crate) fn drain<E: From<io::Error>>(
        &mut self,
        mut line: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        self.read(&mut line)?;
        while let Some(next) = self.successor()? {
            // Whoever rotated has stopped writing to the old file; one more look takes the rest.
            self.read(&mut line)?;
            if !self.rest.is_empty() {
                line(&std::mem::take(&mut self.rest))?;
            }
            (self.file, self.position) = (next, 0);
            self.read(&mut line)?;
        }
        Ok(())
    }

    /// A last line that never got its end.
    pub(crate) fn finish(&mut self) -> Option<Vec<u8>> {
        let rest = std::mem::take(&mut self.rest);
        (!rest.is_empty()).then_some(rest)
    }

    fn read<E: From<io::Error>>(
        &mut self,
        line: &mut impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.file.metadata()?.len() < self.position {
            self.position = 0;
            self.rest.clear();
        }
        self.file.seek(SeekFrom::Start(self.position))?;
        let mut chunk = vec![0; CHUNK];
        loop {
            let count = match self.file.read(&mut chunk) {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            self.position += u64::try_from(count).unwrap_or_default();
            let mut new = &chunk[..count];
            while let Some(end) = new.iter().position(|byte| *byte == b'\n') {
                self.rest.extend_from_slice(&new[..end]);
                line(&self.rest)?;
                self.rest.clear();
                new = &new[end + 1..];
            }
            self.rest.extend_from_slice(new);
        }
    }

    /// The file that has taken this one's name, if there is one.
    fn successor(&self) -> io::Result<Option<File>> {
        let now = match fs::metadata(&self.path) {
            Ok(now) => now,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let own = self.file.metadata()?;
        if (own.dev(), own.ino()) == (now.dev(), now.ino()) {
            return Ok(None);
        }
        match File::open(&self.path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn drain(log: &mut LogFile) -> Vec<String> {
        let mut lines = Vec::new();
        let result: io::Result<()> = log.drain(|line| {
            lines.push(String::from_utf8_lossy(line).into_owned());
            Ok(())
        });
        result.unwrap();
        lines
    }

    fn append(path: &Path, text: &str) {
        let mut file = fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    #[test]
    fn growing_lines_come_once_and_whole() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("0.log");
        append(&path, "one\ntw");
        let mut log = LogFile::open(&path).unwrap();
        assert_eq!(drain(&mut log), ["one"]);
        append(&path, "o\nthree\n");
        assert_eq!(drain(&mut log), ["two", "three"]);
        append(&path, "end");
        assert_eq!(drain(&mut log), [""; 0]);
        assert_eq!(log.finish().unwrap(), b"end");
    }

    #[test]
    fn rotation_loses_nothing() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("0.log");
        append(&path, "one\n");
        let mut log = LogFile::open(&path).unwrap();
        assert_eq!(drain(&mut log), ["one"]);
        append(&path, "two\n");
        let old = scratch.path().join("0.log.1");
        fs::rename(&path, &old).unwrap();
        append(&old, "three\n");
        assert_eq!(drain(&mut log), ["two", "three"]);
        append(&old, "four\n");
        append(&path, "five\n");
        assert_eq!(drain(&mut log), ["four", "five"]);
    }

    #[test]
    fn a_cut_file_is_read_anew() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("0.log");
        append(&path, "one\ntwo\n");
        let mut log = LogFile::open(&path).unwrap();
        assert_eq!(drain(&mut log), ["one", "two"]);
        fs::write(&path, "new\n").unwrap();
        assert_eq!(drain(&mut log), ["new"]);
    }
}
