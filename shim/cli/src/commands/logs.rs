//! `carpel logs`

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use carpel_proto::cri;
use tokio::time::{Instant, sleep};

use super::get;
use crate::args::Logs;
use crate::client::Session;
use crate::error::{CliError, Doing, Result};
use crate::logs::{Entry, Joiner, LogFile};
use crate::{out, resolve, time};

const POLL: Duration = Duration::from_millis(100);
/// How often the runtime is asked whether the container still runs.
const ASK: Duration = Duration::from_millis(500);
/// How long a runtime may be away while its container's log is followed.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) async fn run(session: &Session, args: &Logs) -> Result<()> {
    let pod = resolve::pod(session, &args.pod, &args.scope).await?;
    let containers = resolve::containers(session, Some(&pod.id)).await?;
    let (container, note) = resolve::pick(&pod, &containers, args.container.as_deref())?;
    if let Some(note) = note {
        out::note(note);
    }
    let name = resolve::container_name(container);
    let Some(status) = get::container_status(session, container).await? else {
        return Err(CliError::Absent {
            kind: "container",
            wanted: name.to_owned(),
        });
    };
    if status.log_path.is_empty() {
        return Err(CliError::refused(format!("container {name} keeps no log")));
    }
    let path = match args.previous {
        true => previous(Path::new(&status.log_path), &status)?,
        false => PathBuf::from(&status.log_path),
    };
    let mut printer = Printer::new(args);
    let mut file = match LogFile::open(&path) {
        Ok(file) => file,
        // A container that was never started has no log yet.
        Err(error)
            if error.kind() == ErrorKind::NotFound
                && status.state() == cri::ContainerState::ContainerCreated =>
        {
            return Ok(());
        }
        Err(error) => return Err(CliError::io(format!("open {}", path.display()), error)),
    };
    printer.take(&mut file)?;
    printer.release()?;
    if args.follow && !args.previous {
        follow(session, container, &mut file, &mut printer).await?;
    }
    printer.finish(&mut file)
}

/// `DIR/1.log` has `DIR/0.log` before it, as the kubelet names them.
fn previous(path: &Path, status: &cri::ContainerStatus) -> Result<PathBuf> {
    let attempt = status
        .metadata
        .as_ref()
        .map_or(0, |metadata| metadata.attempt);
    let Some(before) = attempt.checked_sub(1) else {
        return Err(CliError::refused("there was no container before this one"));
    };
    Ok(path.with_file_name(format!("{before}.log")))
}

async fn follow(
    session: &Session,
    container: &cri::Container,
    file: &mut LogFile,
    printer: &mut Printer,
) -> Result<()> {
    let mut asked = Instant::now();
    let mut answered = Instant::now();
    loop {
        let mut ended = false;
        if asked.elapsed() >= ASK {
            asked = Instant::now();
            match get::container_status(session, container).await {
                Ok(status) => {
                    answered = asked;
                    ended = status.is_none_or(|status| is_over(&status));
                }
                // A daemon that is restarted does not end the container, nor its log.
                Err(error) if error.is_unavailable() && answered.elapsed() < PATIENCE => {}
                Err(error) => return Err(error),
            }
        }
        // In this order: all that was written before it ended is in the file by now.
        printer.take(file)?;
        printer.release()?;
        if ended {
            return Ok(());
        }
        sleep(POLL).await;
    }
}

fn is_over(status: &cri::ContainerStatus) -> bool {
    use cri::ContainerState::{ContainerCreated, ContainerRunning};
    !matches!(status.state(), ContainerRunning | ContainerCreated)
}

/// Chooses lines and prints them.
struct Printer {
    joiner: Joiner,
    timestamps: bool,
    /// Lines before this moment are left out.
    since: Option<i128>,
    /// Only so many lines of what is there at the beginning.
    tail: Option<usize>,
    held: VecDeque<Entry>,
}

/// What can go wrong while a file is read and printed.
enum Fault {
    Read(io::Error),
    Print(CliError),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Read(error)
    }
}

impl Printer {
    fn new(args: &Logs) -> Self {
        let since = args.since.map(|since| {
            i128::from(time::now()) - i128::try_from(since.as_nanos()).unwrap_or(i128::MAX)
        });
        let tail = args.tail;
        let (joiner, held) = (Joiner::default(), VecDeque::new());
        Self {
            joiner,
            timestamps: args.timestamps,
            since,
            tail,
            held,
        }
    }

    fn take(&mut self, file: &mut LogFile) -> Result<()> {
        let taken = file.drain(|line| match self.joiner.push(line) {
            Some(entry) => self.show(entry).map_err(Fault::Print),
            None => Ok(()),
        });
        match taken {
            Ok(()) => Ok(()),
            Err(Fault::Print(error)) => Err(error),
            Err(Fault::Read(error)) => Err(error).doing("read the log"),
        }
    }

    fn show(&mut self, entry: Entry) -> Result<()> {
        let old = |since| entry.nanoseconds().is_some_and(|time| time < since);
        if self.since.is_some_and(old) {
            return Ok(());
        }
        let Some(tail) = self.tail else {
            return self.print(&entry);
        };
        self.held.push_back(entry);
        if self.held.len() > tail {
            self.held.pop_front();
        }
        Ok(())
    }

    /// Prints the lines held back by `tail`; later ones are printed as they come.
    fn release(&mut self) -> Result<()> {
        self.tail = None;
        while let Some(entry) = self.held.pop_front() {
            self.print(&entry)?;
        }
        Ok(())
    }

    fn finish(mut self, file: &mut LogFile) -> Result<()> {
        let last = file.finish().and_then(|line| self.joiner.push(&line));
        let left: Vec<Entry> = last.into_iter().chain(self.joiner.finish()).collect();
        left.into_iter().try_for_each(|entry| self.show(entry))
    }

    fn print(&self, entry: &Entry) -> Result<()> {
        if self.timestamps && !entry.time.is_empty() {
            let mut line = format!("{} ", entry.time).into_bytes();
            line.extend_from_slice(&entry.text);
            return out::bytes(&line);
        }
        out::bytes(&entry.text)
    }
}
