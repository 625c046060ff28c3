//! What went through the interfaces of a network namespace.

use crate::error::Error;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Interface {
    pub(crate) name: String,
    pub(crate) received: Counters,
    pub(crate) sent: Counters,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    pub(crate) bytes: u64,
    pub(crate) packets: u64,
    pub(crate) errors: u64,
    pub(crate) dropped: u64,
}

/// Interfaces of the namespace that a process is in, but for the loopback.
pub(super) fn of_process(pid: i32) -> Result<Vec<Interface>, Error> {
    let path = format!("/proc/{pid}/net/dev");
    let text = std::fs::read_to_string(&path).map_err(Error::io(format!("read {path}")))?;
    Ok(parse(&text))
}

/// Lines of proc_net_dev(5): eight counters of what came, eight of what went.
fn parse(text: &str) -> Vec<Interface> {
    let line = |line: &str| {
        let (name, counters) = line.rsplit_once(':')?;
        let counters: Vec<u64> = counters
            .split_whitespace()
            .map(|word| word.parse().ok())
            .collect::<Option<_>>()?;
        let half = |at: usize| {
            Some(Counters {
                bytes: *counters.get(at)?,
                packets: *counters.get(at + 1)?,
                errors: *counters.get(at + 2)?,
                dropped: *counters.get(at + 3)?,
            })
        };
        let interface = Interface {
            name: name.trim().to_owned(),
            received: half(0)?,
            sent: half(8)?,
        };
        (interface.name != "lo").then_some(interface)
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::{Counters, parse};

    #[test]
    fn both_halves_of_a_line_are_read() {
        let text = "Inter-|   Receive                    |  Transmit\n \
                    face |bytes    packets errs drop fifo frame compressed multicast|bytes packets\n\
                    lo:  9 9 9 9 0 0 0 0 9 9 9 9 0 0 0 0\n  \
                    eth0: 10 1 2 3 0 0 0 0 20 4 5 6 0 0 0 0\n\
                    net:1:7 1 0 0 0 0 0 0 8 1 0 0 0 0 0 0\n";
        let interfaces = parse(text);
        let names: Vec<_> = interfaces.iter().map(|i| i.name.as_str()).collect();
        assert_eq!(names, ["eth0", "net:1"]);
        let received = Counters {
            bytes: 10,
            packets: 1,
            errors: 2,
            dropped: 3,
        };
        let sent = Counters {
            bytes: 20,
            packets: 4,
            errors: 5,
            dropped: 6,
        };
        assert_eq!(
            (interfaces[0].received, interfaces[0].sent),
            (received, sent)
        );
    }

    #[test]
    fn a_line_that_is_cut_off_is_left_out() {
        assert!(parse("eth0: 1 2 3\n").is_empty());
        assert!(parse("eth0: 1 2 3 4 5 6 7 8 9 x 11 12\n").is_empty());
    }
}
