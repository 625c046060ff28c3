//! What a registry can do wrong.

/// From how many bytes on a blob is large.
pub(super) const LARGE: usize = 100_000;

/// Which answers a fault spoils.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    Manifest,
    Blob,
    /// Blobs of at least 100,000 bytes: layers, and no configuration.
    LargeBlob,
    Token,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// This status and no content.
    Status(u16),
    /// 429 with `Retry-After`, in seconds.
    Busy(u32),
    /// 200 with bytes that mean nothing.
    Garbage,
    /// The right length and type, one byte wrong.
    Flipped,
    /// 307 to this address.
    Redirect(String),
    /// 401 with this `WWW-Authenticate`.
    Challenge(String),
    /// The right content under this media type.
    Type(String),
    /// The connection ends after this many bytes of the content.
    CutAfter(usize),
    /// After this many bytes nothing more comes, and the connection stays.
    StallAfter(usize),
}

/// A fault and how often it still happens.
#[derive(Debug)]
pub(super) struct Armed {
    pub(super) target: Target,
    pub(super) fault: Fault,
    pub(super) times: u32,
}

impl Armed {
    /// The fault, if it is for `target` and not used up.
    pub(super) fn take(list: &mut [Self], target: Target) -> Option<Fault> {
        let armed = list
            .iter_mut()
            .find(|armed| armed.target == target && armed.times > 0)?;
        armed.times -= 1;
        Some(armed.fault.clone())
    }
}
