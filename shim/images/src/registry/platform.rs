//! Which manifest of an index is for this machine.

use std::env::consts::ARCH;

use super::failure::{Failure, presentable};
use super::manifest::{Entry, Platform};

/// The kind of machine that images must be for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Machine {
    architecture: &'static str,
    /// Of those there are, the ones that run here, best first. `""` is the baseline,
    /// and comes first where it exists: every node then has the same image.
    variants: &'static [&'static str],
}

impl Machine {
    /// The one this runs on.
    pub(super) fn this() -> Self {
        match ARCH {
            "x86_64" => Self {
                architecture: "amd64",
                variants: &["", "v1"],
            },
            "aarch64" => Self {
                architecture: "arm64",
                variants: &["v8", ""],
            },
            "arm" => Self {
                architecture: "arm",
                variants: &["v7", "", "v6", "v5"],
            },
            "x86" => Self {
                architecture: "386",
                variants: &[""],
            },
            "powerpc64" => Self {
                architecture: "ppc64le",
                variants: &[""],
            },
            other => Self {
                architecture: other,
                variants: &[""],
            },
        }
    }

    /// Smaller is better; `None` does not run here.
    fn rank(&self, platform: &Platform) -> Option<usize> {
        if platform.os != "linux" || platform.architecture != self.architecture {
            return None;
        }
        self.variants
            .iter()
            .position(|variant| *variant == platform.variant)
    }

    /// The entry to follow: the best of this platform, else the only index or the
    /// only manifest that does not say what it is for.
    pub(super) fn pick<'a>(&self, entries: &'a [Entry]) -> Result<&'a Entry, Failure> {
        let ranked = entries.iter().filter_map(|entry| {
            let rank = self.rank(entry.platform.as_ref()?)?;
            Some((rank, entry))
        });
        if let Some((_, best)) = ranked.min_by_key(|(rank, _)| *rank) {
            return Ok(best);
        }
        let mut silent = entries.iter().filter(|entry| entry.platform.is_none());
        match (silent.next(), silent.next()) {
            (Some(only), None) if only.is_index() || entries.len() == 1 => Ok(only),
            _ => Err(self.absent(&offered(entries))),
        }
    }

    /// Refuses a configuration made for other machines. One that does not say is
    /// taken at the word of who pulls it.
    pub(super) fn check_config(&self, config: &[u8]) -> Result<(), Failure> {
        let platform: Platform = serde_json::from_slice(config)
            .map_err(|error| Failure::corrupt(format!("image configuration: {error}")))?;
        let os = platform.os.is_empty() || platform.os == "linux";
        let architecture =
            platform.architecture.is_empty() || platform.architecture == self.architecture;
        if os && architecture {
            return Ok(());
        }
        Err(self.absent(&shown(&platform)))
    }

    fn absent(&self, offered: &str) -> Failure {
        let architecture = self.architecture;
        Failure::Missing(format!(
            "no image for linux/{architecture} here, only {offered}"
        ))
    }
}

fn offered(entries: &[Entry]) -> String {
    const SHOWN: usize = 8;
    let mut names: Vec<String> = entries
        .iter()
        .filter_map(|entry| entry.platform.as_ref())
        .map(shown)
        .collect();
    names.sort();
    names.dedup();
    names.truncate(SHOWN);
    if names.is_empty() {
        "nothing".to_owned()
    } else {
        names.join(", ")
    }
}

fn shown(platform: &Platform) -> String {
    let Platform {
        os,
        architecture,
        variant,
    } = platform;
    let slash = if variant.is_empty() { "" } else { "/" };
    presentable(&format!("{os}/{architecture}{slash}{variant}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::Digest;
    use crate::registry::Descriptor;

    const AMD64: Machine = Machine {
        architecture: "amd64",
        variants: &["", "v1"],
    };
    const ARM: Machine = Machine {
        architecture: "arm",
        variants: &["v7", "", "v6", "v5"],
    };

    fn entries(platforms: &[&str]) -> Vec<Entry> {
        let entry = |(at, text): (usize, &&str)| {
            let mut parts = text.split('/').map(str::to_owned);
            let mut part = || parts.next().unwrap_or_default();
            let platform = Platform {
                os: part(),
                architecture: part(),
                variant: part(),
            };
            let digest = Digest::parse(&format!("sha256:{at:064}")).unwrap();
            Entry {
                descriptor: Descriptor {
                    media_type: String::new(),
                    digest,
                    size: 1,
                },
                platform: (!text.is_empty()).then_some(platform),
            }
        };
        platforms.iter().enumerate().map(entry).collect()
    }

    fn picked(machine: Machine, platforms: &[&str]) -> Option<usize> {
        let all = entries(platforms);
        let pick = machine.pick(&all).ok()?;
        all.iter().position(|entry| std::ptr::eq(entry, pick))
    }

    #[test]
    fn the_best_of_our_kind_is_picked() {
        let usual = [
            "unknown/unknown",
            "linux/arm/v6",
            "linux/arm/v7",
            "linux/amd64",
            "windows/amd64",
        ];
        assert_eq!(picked(AMD64, &usual), Some(3));
        assert_eq!(picked(ARM, &usual), Some(2));
        assert_eq!(
            picked(AMD64, &["linux/amd64/v3", "linux/amd64/v1"]),
            Some(1)
        );
        assert_eq!(picked(AMD64, &["linux/amd64/v3", "windows/amd64"]), None);
        assert_eq!(picked(AMD64, &[""]), Some(0));
        assert_eq!(picked(AMD64, &["", ""]), None);
        assert_eq!(picked(AMD64, &[]), None);
    }

    #[test]
    fn absence_says_what_there_is() {
        let all = entries(&["linux/arm64/v8", "windows/amd64", ""]);
        let failure = AMD64.pick(&all).unwrap_err();
        assert!(matches!(failure, Failure::Missing(_)));
        assert!(failure.why().contains("linux/amd64"));
        assert!(
            failure.why().contains("linux/arm64/v8, windows/amd64"),
            "{}",
            failure.why()
        );
    }

    #[test]
    fn a_configuration_for_other_machines_is_refused() {
        assert!(
            AMD64
                .check_config(br#"{"os":"linux","architecture":"amd64"}"#)
                .is_ok()
        );
        assert!(AMD64.check_config(b"{}").is_ok());
        let other = AMD64
            .check_config(br#"{"os":"linux","architecture":"arm64"}"#)
            .unwrap_err();
        assert!(matches!(other, Failure::Missing(_)));
        assert!(matches!(
            AMD64.check_config(b"[").unwrap_err(),
            Failure::Corrupt(_)
        ));
    }

    #[test]
    fn this_machine_has_a_name() {
        let name = Machine::this().architecture;
        let want = if cfg!(target_arch = "x86_64") {
            "amd64"
        } else {
            name
        };
        assert_eq!(name, want);
    }
}
