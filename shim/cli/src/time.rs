//! Times as people read and write them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;

/// `90`, `90s`, `5m`, `2h`, `1h30m`, `250ms`; a bare number is seconds.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let fault = || format!("{text:?} is not a time such as 10s, 5m or 1h30m");
    if let Ok(seconds) = text.parse::<u32>() {
        return Ok(Duration::from_secs(seconds.into()));
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    if rest.is_empty() {
        return Err(fault());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(fault)?;
        let (number, tail) = rest.split_at(digits);
        let number: u32 = number.parse().map_err(|_| fault())?;
        let letters = tail
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let unit = match unit {
            "ms" => Duration::from_millis(1),
            "s" => Duration::from_secs(1),
            "m" => Duration::from_secs(60),
            "h" => Duration::from_secs(3600),
            _ => return Err(fault()),
        };
        total = unit
            .checked_mul(number)
            .and_then(|d| total.checked_add(d))
            .ok_or_else(fault)?;
        rest = tail;
    }
    Ok(total)
}

/// Nanoseconds since 1970.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// `5s`, `3m20s`, `7h`, `4d`: two units while they matter.
pub(crate) fn age(since: i64, now: i64) -> String {
    if since <= 0 {
        return "<unknown>".to_owned();
    }
    let seconds = now.saturating_sub(since).max(0) / 1_000_000_000;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let pair = |big: i64, unit: char, small: i64, small_unit: char| match small {
        0 => format!("{big}{unit}"),
        small => format!("{big}{unit}{small}{small_unit}"),
    };
    match () {
        () if seconds < 120 => format!("{seconds}s"),
        () if minutes < 10 => pair(minutes, 'm', seconds % 60, 's'),
        () if minutes < 180 => format!("{minutes}m"),
        () if hours < 8 => pair(hours, 'h', minutes % 60, 'm'),
        () if hours < 48 => format!("{hours}h"),
        () if days < 8 => pair(days, 'd', hours % 24, 'h'),
        () if days < 730 => format!("{days}d"),
        () => pair(days / 365, 'y', days % 365, 'd'),
    }
}

/// RFC 3339 in UTC; empty for "never".
pub(crate) fn rfc3339(nanoseconds: i64) -> String {
    if nanoseconds <= 0 {
        return String::new();
    }
    Timestamp::from_nanosecond(nanoseconds.into())
        .map(|time| time.to_string())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(parse_duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        for bad in ["", "x", "5x", "m", "-1s", "1m30"] {
            assert!(parse_duration(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn ages() {
        let of = |seconds: i64| age(1, seconds * 1_000_000_000 + 1);
        assert_eq!(of(5), "5s");
        assert_eq!(of(119), "119s");
        assert_eq!(of(200), "3m20s");
        assert_eq!(of(180), "3m");
        assert_eq!(of(3600), "60m");
        assert_eq!(of(4 * 3600 + 60), "4h1m");
        assert_eq!(of(26 * 3600), "26h");
        assert_eq!(of(50 * 3600), "2d2h");
        assert_eq!(of(800 * 86_400), "2y70d");
        assert_eq!(age(0, 5), "<unknown>");
    }

    #[test]
    fn timestamps() {
        assert_eq!(rfc3339(1_500_000_000), "1970-01-01T00:00:01.5Z");
        assert_eq!(rfc3339(0), "");
    }
}
