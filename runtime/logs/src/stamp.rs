//! The time of a log line, as RFC 3339 with nine digits.

use std::time::{SystemTime, UNIX_EPOCH};

/// Length of `2016-10-06T00:17:09.669794202Z`.
const LEN: usize = 30;
const NS: u64 = 1_000_000_000;
/// 9999-12-31T23:59:59.999999999Z does not fit into 64 bits of nanoseconds; this does.
const LAST: u64 = u64::MAX;

/// A clock for one file: its times never go back, though the system's may.
#[derive(Debug)]
pub struct Stamp {
    ns: u64,
    /// The second that `text` was last formatted for.
    second: Option<u64>,
    text: [u8; LEN],
}

impl Default for Stamp {
    fn default() -> Self {
        Self {
            ns: 0,
            second: None,
            text: *b"0000-00-00T00:00:00.000000000Z",
        }
    }
}

impl Stamp {
    /// The present, or the last time given when that is later.
    pub fn now(&mut self) -> &[u8] {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        self.at(u64::try_from(since.as_nanos()).unwrap_or(LAST))
    }

    /// A time in nanoseconds since 1970, or the last one given when that is later.
    pub fn at(&mut self, ns: u64) -> &[u8] {
        self.ns = self.ns.max(ns);
        let second = self.ns / NS;
        if self.second != Some(second) {
            self.date(second);
            self.second = Some(second);
        }
        digits(&mut self.text[20..29], self.ns % NS);
        &self.text
    }

    fn date(&mut self, second: u64) {
        let (year, month, day) = civil(second / 86_400);
        let time = second % 86_400;
        digits(&mut self.text[0..4], year);
        digits(&mut self.text[5..7], month);
        digits(&mut self.text[8..10], day);
        digits(&mut self.text[11..13], time / 3600);
        digits(&mut self.text[14..16], time / 60 % 60);
        digits(&mut self.text[17..19], time % 60);
    }
}

fn digits(out: &mut [u8], mut number: u64) {
    for byte in out.iter_mut().rev() {
        *byte = b"0123456789"[(number % 10) as usize];
        number /= 10;
    }
}

/// Year, month and day of a day since 1970 in the Gregorian calendar.
///
/// Years are taken to begin in March, so that the odd day is the year's last.
fn civil(day: u64) -> (u64, u64, u64) {
    const FOUR_CENTURIES: u64 = 146_097;
    const FROM_MARCH_OF_0: u64 = 719_468;
    let day = day + FROM_MARCH_OF_0;
    let (era, day) = (day / FOUR_CENTURIES, day % FOUR_CENTURIES);
    let leap_days = day / 1460 - day / 36_524 + day / (FOUR_CENTURIES - 1);
    let year = (day - leap_days) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let of_month = day - (153 * month + 2) / 5 + 1;
    let (month, later) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    (era * 400 + year + later, month, of_month)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(second: u64, ns: u64) -> String {
        String::from_utf8(Stamp::default().at(second * NS + ns).to_vec()).unwrap()
    }

    #[test]
    fn known_times() {
        assert_eq!(text(0, 0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(text(951_782_399, 1), "2000-02-28T23:59:59.000000001Z");
        assert_eq!(text(951_782_400, 0), "2000-02-29T00:00:00.000000000Z");
        assert_eq!(
            text(1_475_713_029, 669_794_202),
            "2016-10-06T00:17:09.669794202Z"
        );
        assert_eq!(
            text(4_107_542_399, 999_999_999),
            "2100-02-28T23:59:59.999999999Z"
        );
        assert_eq!(text(4_107_542_400, 0), "2100-03-01T00:00:00.000000000Z");
    }

    #[test]
    fn each_day_follows_the_one_before() {
        let mut last = civil(0);
        for day in 1..200_000 {
            let next = civil(day);
            let same_month = (last.0, last.1, last.2 + 1);
            let next_month = (last.0, last.1 + 1, 1);
            assert!(
                next == same_month || next == next_month || next == (last.0 + 1, 1, 1),
                "{last:?} {next:?}"
            );
            assert!(last.2 <= 31 && (next.2 != 1 || last.2 >= 28));
            last = next;
        }
    }

    #[test]
    fn time_never_goes_back() {
        let mut stamp = Stamp::default();
        let later = stamp.at(5 * NS).to_vec();
        assert_eq!(stamp.at(3 * NS), later);
        assert!(stamp.at(5 * NS + 1) > &later[..]);
        let now = stamp.now().to_vec();
        assert!(stamp.now() >= &now[..]);
    }
}
