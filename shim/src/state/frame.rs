//! The envelope of a record: magic, schema version, length, CRC, message.

use prost::Message;

const MAGIC: [u8; 4] = *b"CRPL";
/// Raised when an older daemon could misread a record; added fields do not.
const SCHEMA: u16 = 1;
const HEADER: usize = 4 + 2 + 2 + 4 + 4;

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FrameError {
    #[error("is cut short: {0} bytes")]
    Short(usize),
    #[error("is no record: its first bytes are {0:02x?}")]
    Magic([u8; 4]),
    #[error("has schema {0}; this daemon knows {SCHEMA}")]
    Schema(u16),
    #[error("has {found} bytes of message instead of {said}")]
    Length { said: usize, found: usize },
    #[error("fails its checksum")]
    Checksum,
    #[error("holds no such message: {0}")]
    Message(String),
}

pub(super) fn encode(message: &impl Message) -> Vec<u8> {
    let body = message.encode_to_vec();
    let mut bytes = Vec::with_capacity(HEADER + body.len());
    bytes.extend(MAGIC);
    bytes.extend(SCHEMA.to_le_bytes());
    bytes.extend([0, 0]);
    bytes.extend(u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend(crc32fast::hash(&body).to_le_bytes());
    bytes.extend(body);
    bytes
}

pub(super) fn decode<M: Message + Default>(bytes: &[u8]) -> Result<M, FrameError> {
    let Some((header, body)) = bytes.split_first_chunk::<HEADER>() else {
        return Err(FrameError::Short(bytes.len()));
    };
    let [m0, m1, m2, m3, s0, s1, _, _, l0, l1, l2, l3, c0, c1, c2, c3] = *header;
    let magic = [m0, m1, m2, m3];
    if magic != MAGIC {
        return Err(FrameError::Magic(magic));
    }
    let schema = u16::from_le_bytes([s0, s1]);
    if schema != SCHEMA {
        return Err(FrameError::Schema(schema));
    }
    let said = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    if said != body.len() {
        return Err(FrameError::Length {
            said,
            found: body.len(),
        });
    }
    if u32::from_le_bytes([c0, c1, c2, c3]) != crc32fast::hash(body) {
        return Err(FrameError::Checksum);
    }
    M::decode(body).map_err(|error| FrameError::Message(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::{FrameError, decode, encode};
    use carpel_proto::state::PodRecord;

    fn record() -> PodRecord {
        PodRecord {
            id: "abc".into(),
            created_at_ns: 7,
            ..PodRecord::default()
        }
    }

    #[test]
    fn a_record_comes_back() {
        assert_eq!(decode::<PodRecord>(&encode(&record())), Ok(record()));
    }

    #[test]
    fn any_flipped_byte_is_noticed() {
        let good = encode(&record());
        for i in (0..good.len()).filter(|i| !(6..8).contains(i)) {
            let mut bad = good.clone();
            bad[i] ^= 0x41;
            assert!(decode::<PodRecord>(&bad).is_err(), "byte {i}");
        }
    }

    #[test]
    fn any_cut_is_noticed() {
        let good = encode(&record());
        for end in 0..good.len() {
            assert!(decode::<PodRecord>(&good[..end]).is_err(), "{end} bytes");
        }
    }

    #[test]
    fn a_newer_schema_is_named() {
        let mut bytes = encode(&record());
        bytes[4] = 9;
        assert_eq!(decode::<PodRecord>(&bytes), Err(FrameError::Schema(9)));
    }
}
