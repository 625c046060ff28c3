//! Names of content by its hash.

use std::fmt;
use std::str::FromStr;

use super::{invalid, is_lower_hex};
use crate::engine::Error;

/// Hash functions that content may be named by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    Sha256,
    Sha512,
}

impl Algorithm {
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    fn hex_len(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }
}

/// Name of content by its hash. Only lower-case hexadecimal digits of the right
/// number get in, so [`Digest::hex`] is safe as a path component.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest {
    algorithm: Algorithm,
    hex: String,
}

impl Digest {
    pub fn parse(text: &str) -> Result<Self, Error> {
        Self::try_parse(text).map_err(|why| invalid("digest", text, why))
    }

    pub(super) fn try_parse(text: &str) -> Result<Self, &'static str> {
        let (name, hex) = text.split_once(':').ok_or("has no algorithm")?;
        let algorithm = match name {
            "sha256" => Algorithm::Sha256,
            "sha512" => Algorithm::Sha512,
            _ => return Err("algorithm is neither sha256 nor sha512"),
        };
        if hex.len() != algorithm.hex_len() {
            return Err("has the wrong number of digits");
        }
        if !is_lower_hex(hex) {
            return Err("has characters other than 0-9 and a-f");
        }
        Ok(Self {
            algorithm,
            hex: hex.to_owned(),
        })
    }

    /// Of a finished hash.
    pub(crate) fn from_hash(algorithm: Algorithm, hash: &[u8]) -> Self {
        let mut hex = String::with_capacity(hash.len() * 2);
        for byte in hash {
            for nibble in [byte >> 4, byte & 0xf] {
                hex.push(char::from_digit(u32::from(nibble), 16).unwrap_or('0'));
            }
        }
        Self { algorithm, hex }
    }

    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The digits alone.
    pub fn hex(&self) -> &str {
        &self.hex
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.name(), self.hex)
    }
}

impl FromStr for Digest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: &str = "sha256:9700a4ffc9ddaa5ab8e15ca5ba7b6c4ba1d0a6e5a1ba1ab1e5a2a8eb1a1a66bf";

    #[test]
    fn digests_are_safe_as_path_components() {
        assert_eq!(Digest::parse(D).unwrap().to_string(), D);
        let long = format!("sha512:{}", "a".repeat(128));
        assert_eq!(Digest::parse(&long).unwrap().to_string(), long);
        for text in [
            "sha256:",
            "md5:00",
            "sha256:../../etc/passwd",
            "sha256",
            "",
            ":",
            "SHA256:00",
            &format!("sha256:{}", "g".repeat(64)),
            &format!("sha256:{}/", "a".repeat(63)),
            &format!("sha256:{}", "A".repeat(64)),
            &format!("sha512:{}", "a".repeat(64)),
        ] {
            assert!(Digest::parse(text).is_err(), "{text}");
        }
    }
}
