//! Hashing content as it passes, to compare with the name it came under.

use std::fmt;

use sha2::{Digest as _, Sha256, Sha512};

use crate::reference::{Algorithm, Digest};

/// Running hash and length of content that claims to be `expected`. Cloning it
/// keeps the state, so one can stand for the part of a blob that is on disk already.
#[derive(Clone)]
pub struct Verifier {
    expected: Digest,
    hasher: Hasher,
    bytes: u64,
}

#[derive(Clone)]
enum Hasher {
    Sha256(Sha256),
    Sha512(Box<Sha512>),
}

impl Hasher {
    fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Sha256 => Self::Sha256(Sha256::new()),
            Algorithm::Sha512 => Self::Sha512(Box::default()),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Sha512(hasher) => hasher.update(bytes),
        }
    }

    fn finish(&self) -> Digest {
        match self {
            Self::Sha256(h) => Digest::from_hash(Algorithm::Sha256, &h.clone().finalize()),
            Self::Sha512(h) => Digest::from_hash(Algorithm::Sha512, &h.clone().finalize()),
        }
    }
}

impl Verifier {
    pub fn new(expected: &Digest) -> Self {
        let hasher = Hasher::new(expected.algorithm());
        Self {
            expected: expected.clone(),
            hasher,
            bytes: 0,
        }
    }

    pub fn update(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
    }

    /// How many bytes have passed.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn expected(&self) -> &Digest {
        &self.expected
    }

    /// The digest of what has passed, as `Err` when it is not the expected one.
    pub fn check(&self) -> Result<(), Digest> {
        let actual = self.hasher.finish();
        if actual == self.expected {
            Ok(())
        } else {
            Err(actual)
        }
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier")
            .field("expected", &self.expected)
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

/// Digest of `bytes` under `algorithm`.
pub(crate) fn digest_of(algorithm: Algorithm, bytes: &[u8]) -> Digest {
    let mut hasher = Hasher::new(algorithm);
    hasher.update(bytes);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABC: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    const ABC_512: &str = "sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
                           2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f";

    #[test]
    fn pieces_hash_to_the_whole_and_change_is_seen() {
        for expected in [ABC, ABC_512] {
            let mut verifier = Verifier::new(&Digest::parse(expected).unwrap());
            verifier.update(b"ab");
            let mut resumed = verifier.clone();
            resumed.update(b"c");
            assert_eq!(resumed.bytes(), 3);
            assert_eq!(resumed.check(), Ok(()));
            verifier.update(b"d");
            assert!(verifier.check().is_err());
        }
        assert_eq!(digest_of(Algorithm::Sha256, b"abc").to_string(), ABC);
    }
}
