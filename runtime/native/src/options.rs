//! Options of a mount: those of the mount itself, and those of its file system.

use carpel_sys::mount::{Attr, Flags, Propagation};

/// Mount options sorted by who they are for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) attr: Attr,
    /// The change of attributes is for all mounts below as well.
    pub(crate) recursive_attr: bool,
    pub(crate) recursive_propagation: bool,
    pub(crate) bind: bool,
    pub(crate) recursive_bind: bool,
    /// For the file system.
    pub(crate) data: Vec<String>,
}

impl Options {
    pub(crate) fn new<S: AsRef<str>>(options: &[S]) -> Self {
        let mut all = Self::default();
        for option in options {
            all.add(option.as_ref());
        }
        all
    }

    fn add(&mut self, option: &str) {
        match option {
            "" | "defaults" | "relatime" => {}
            "bind" => self.bind = true,
            "rbind" => {
                self.bind = true;
                self.recursive_bind = true;
            }
            _ if self.add_propagation(option) || self.add_flag(option) => {}
            // The leading `r` of a flag means: and all below.
            _ => match option.strip_prefix('r') {
                Some(plain) if self.add_flag(plain) => self.recursive_attr = true,
                _ => self.data.push(option.to_owned()),
            },
        }
    }

    fn add_flag(&mut self, option: &str) -> bool {
        let (flag, on) = match option {
            "ro" => (Flags::READ_ONLY, true),
            "rw" => (Flags::READ_ONLY, false),
            "nosuid" => (Flags::NOSUID, true),
            "suid" => (Flags::NOSUID, false),
            "nodev" => (Flags::NODEV, true),
            "dev" => (Flags::NODEV, false),
            "noexec" => (Flags::NOEXEC, true),
            "exec" => (Flags::NOEXEC, false),
            "noatime" => (Flags::NOATIME, true),
            "strictatime" => (Flags::STRICTATIME, true),
            "nodiratime" => (Flags::NODIRATIME, true),
            "diratime" => (Flags::NODIRATIME, false),
            "nosymfollow" => (Flags::NOSYMFOLLOW, true),
            "symfollow" => (Flags::NOSYMFOLLOW, false),
            _ => return false,
        };
        let Attr { set, clear, .. } = &mut self.attr;
        // The last word counts.
        (*set, *clear) = if on {
            (*set | flag, clear.without(flag))
        } else {
            (set.without(flag), *clear | flag)
        };
        true
    }

    fn add_propagation(&mut self, option: &str) -> bool {
        let (propagation, recursive) = match option {
            "private" => (Propagation::Private, false),
            "rprivate" => (Propagation::Private, true),
            "slave" => (Propagation::Slave, false),
            "rslave" => (Propagation::Slave, true),
            "shared" => (Propagation::Shared, false),
            "rshared" => (Propagation::Shared, true),
            "unbindable" => (Propagation::Unbindable, false),
            "runbindable" => (Propagation::Unbindable, true),
            _ => return false,
        };
        self.attr.propagation = Some(propagation);
        self.recursive_propagation = recursive;
        true
    }

    /// The change of flags and the change of propagation, each with its reach.
    pub(crate) fn changes(&self) -> [(Attr, bool); 2] {
        let flags = Attr {
            propagation: None,
            ..self.attr
        };
        let propagation = Attr {
            propagation: self.attr.propagation,
            ..Attr::default()
        };
        [
            (flags, self.recursive_attr),
            (propagation, self.recursive_propagation),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_option_finds_its_place() {
        let options = Options::new(&["nosuid", "strictatime", "mode=755", "size=65536k", "rslave"]);
        assert_eq!(options.attr.set, Flags::NOSUID | Flags::STRICTATIME);
        assert_eq!(options.data, ["mode=755", "size=65536k"]);
        assert_eq!(options.attr.propagation, Some(Propagation::Slave));
        assert!(options.recursive_propagation && !options.recursive_attr && !options.bind);
    }

    #[test]
    fn the_last_word_counts() {
        let options = Options::new(&["ro", "rw"]);
        assert_eq!(
            (options.attr.set, options.attr.clear),
            (Flags::NONE, Flags::READ_ONLY)
        );
        let options = Options::new(&["rw", "rbind", "ro"]);
        assert_eq!(
            (options.attr.set, options.attr.clear),
            (Flags::READ_ONLY, Flags::NONE)
        );
        assert!(options.bind && options.recursive_bind);
    }

    #[test]
    fn a_leading_r_reaches_below() {
        let options = Options::new(&["rro", "rnosuid"]);
        assert_eq!(options.attr.set, Flags::READ_ONLY | Flags::NOSUID);
        assert!(options.recursive_attr);
        let plain = Options::new(&["rw", "relatime"]);
        assert!(!plain.recursive_attr && plain.data.is_empty());
    }
}
