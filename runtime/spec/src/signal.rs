//! Signals by name and number.

use crate::error::{Error, Result};

const SIGTERM: i32 = 15;
/// First real-time signal that C libraries leave to programs.
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

/// Numbers as on x86, ARM, RISC-V, POWER and s390.
const NAMES: [(&str, i32); 35] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("IOT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", SIGTERM),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("POLL", 29),
    ("PWR", 30),
    ("SYS", 31),
    ("UNUSED", 31),
];

/// Number of a signal written as `SIGTERM`, `TERM`, `15` or `RTMIN+3`.
pub fn parse_signal(text: &str) -> Result<i32> {
    let invalid = || Error::invalid("stop_signal", text, "is not a signal");
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        let number = text.parse().map_err(|_| invalid())?;
        return if (1..=RTMAX).contains(&number) {
            Ok(number)
        } else {
            Err(invalid())
        };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some((_, number)) = NAMES.iter().find(|(known, _)| *known == name) {
        return Ok(*number);
    }
    realtime(name).ok_or_else(invalid)
}

fn realtime(name: &str) -> Option<i32> {
    let (base, offset) = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(offset), _) => (RTMIN, offset),
        (_, Some(offset)) => (RTMAX, offset),
        _ => return None,
    };
    let digits = offset.strip_prefix(['+', '-']).unwrap_or(offset);
    if offset.is_empty() {
        return Some(base);
    }
    if digits.len() == offset.len() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let number = base.checked_add(offset.parse().ok()?)?;
    (RTMIN..=RTMAX).contains(&number).then_some(number)
}

/// The signal that asks a container to end: its own, else the image's, else TERM.
pub fn stop_signal(container: Option<i32>, image: &str) -> Result<i32> {
    match container {
        Some(number) if (1..=RTMAX).contains(&number) => Ok(number),
        Some(number) => Err(Error::invalid("stop_signal", number, "is not a signal")),
        None if image.is_empty() => Ok(SIGTERM),
        None => parse_signal(image),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_mean_the_same() {
        for text in ["SIGTERM", "TERM", "15", "sigterm"] {
            assert_eq!(parse_signal(text), Ok(15), "{text}");
        }
        assert_eq!(parse_signal("SIGRTMIN"), Ok(34));
        assert_eq!(parse_signal("RTMIN+3"), Ok(37));
        assert_eq!(parse_signal("SIGRTMAX-2"), Ok(62));
        assert_eq!(parse_signal("QUIT"), Ok(3));
    }

    #[test]
    fn what_is_no_signal_is_refused() {
        for text in [
            "", "0", "65", "-9", "+9", "9x", "NOPE", "RTMIN3", "RTMIN-1", "RTMAX+1", "RTMIN+",
            "RTMIN++1",
        ] {
            let error = parse_signal(text).unwrap_err();
            assert_eq!(
                error,
                Error::invalid("stop_signal", text, "is not a signal")
            );
        }
    }

    #[test]
    fn containers_signal_goes_before_the_images() {
        assert_eq!(stop_signal(Some(3), "SIGUSR1"), Ok(3));
        assert_eq!(stop_signal(None, "SIGUSR1"), Ok(10));
        assert_eq!(stop_signal(None, ""), Ok(15));
        assert!(stop_signal(Some(0), "").is_err());
        assert!(stop_signal(None, "bogus").is_err());
    }
}
