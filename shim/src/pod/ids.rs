//! Names of pods and containers: 64 hexadecimal digits, random.

use std::fmt::Write;

use crate::error::Error;

pub(super) fn new_id() -> Result<String, Error> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)
        .map_err(|error| Error::Internal(format!("cannot get random bytes: {error}")))?;
    Ok(bytes
        .iter()
        .fold(String::with_capacity(64), |mut id, byte| {
            let _ = write!(id, "{byte:02x}");
            id
        }))
}

pub(super) fn is_id(text: &str) -> bool {
    text.len() == 64
        && text
            .bytes()
            .all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c))
}

/// As much of an id as a person reads.
pub(super) fn short(id: &str) -> &str {
    id.get(..13).unwrap_or(id)
}

/// Now, in nanoseconds since the epoch, as the CRI wants its times.
pub(crate) fn now_ns() -> i64 {
    i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    #[test]
    fn ids_are_hexadecimal_and_differ() {
        let (a, b) = (super::new_id().unwrap(), super::new_id().unwrap());
        assert_eq!(a.len(), 64);
        assert!(
            a.bytes()
                .all(|c| c.is_ascii_hexdigit() && !c.is_ascii_uppercase())
        );
        assert_ne!(a, b);
        assert!(
            super::is_id(&a) && !super::is_id(&a[1..]) && !super::is_id(&a.replace(&a[..1], "A"))
        );
    }
}
