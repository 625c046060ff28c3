//! Which extended attributes of a layer are kept.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Keep,
    Drop,
    Refuse,
}

/// `trusted.*` would speak to overlayfs, `security.*` to the host's modules:
/// dropped, file capabilities apart. `user.overlay.*` has no honest reason to be.
pub(super) fn judge(name: &[u8]) -> Verdict {
    if name.starts_with(b"user.overlay.") || name.contains(&0) {
        return Verdict::Refuse;
    }
    if name == b"security.capability" || name.starts_with(b"user.") {
        return Verdict::Keep;
    }
    Verdict::Drop
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_capabilities_and_user_attributes_stay() {
        for (name, verdict) in [
            ("security.capability", Verdict::Keep),
            ("user.mime_type", Verdict::Keep),
            ("user.overlay.redirect", Verdict::Refuse),
            ("user.overlay.opaque", Verdict::Refuse),
            ("trusted.overlay.opaque", Verdict::Drop),
            ("trusted.overlay.redirect", Verdict::Drop),
            ("security.selinux", Verdict::Drop),
            ("security.capability2", Verdict::Drop),
            ("system.posix_acl_access", Verdict::Drop),
        ] {
            assert_eq!(judge(name.as_bytes()), verdict, "{name}");
        }
    }
}
