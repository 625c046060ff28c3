//! Profiles in, kernel programs out.

use std::collections::{BTreeMap, HashMap};
use std::io::{Read as _, Seek as _};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use carpel_spec::capability::CapSet;
use libseccomp::error::SeccompError;
use libseccomp::{ScmpAction, ScmpFilterContext, ScmpSyscall};
use rustix::fs::{MemfdFlags, memfd_create};

use super::Error;
use super::newer;
use super::profile::{Context, File, Rule, Rules, parse_kernel};

/// The profile of containers that ask for the runtime's default. It allows and
/// denies what other runtimes' defaults do, so that images work as they do there.
const DEFAULT: &[u8] = include_bytes!("default.json");

/// Far more than any real profile.
const FILE_MAX: u64 = 1 << 20;

/// Programs that are remembered; a node uses a handful.
const CACHE_MAX: usize = 64;

/// Which profile a container runs under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Profile {
    Default,
    /// Absolute path of a file on this node, with or without `localhost/` before it.
    Localhost(String),
}

/// Compiles profiles, each once: it takes longer than starting a container.
#[derive(Debug)]
pub(crate) struct Compiler {
    kernel: (u32, u32),
    programs: Mutex<HashMap<Key, Arc<[u8]>>>,
}

/// Content, not path: a profile may be replaced while the daemon runs.
type Key = (Vec<u8>, CapSet);

impl Compiler {
    pub(crate) fn new() -> Self {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        // A kernel that does not tell is taken for the oldest one we run on.
        let kernel = parse_kernel(&release).unwrap_or((5, 12));
        Self {
            kernel,
            programs: Mutex::default(),
        }
    }

    /// How many programs are remembered.
    pub(crate) fn programs(&self) -> usize {
        let programs = self.programs.lock();
        programs.unwrap_or_else(PoisonError::into_inner).len()
    }

    /// The program, an array of `struct sock_filter`, for a container whose bounding
    /// set is `capabilities`.
    pub(crate) fn program(
        &self,
        profile: &Profile,
        capabilities: CapSet,
    ) -> Result<Arc<[u8]>, Error> {
        let (text, name) = load(profile)?;
        let invalid = |why| Error::Invalid {
            path: name.to_owned(),
            why,
        };
        let key = (text, capabilities);
        // Held while compiling, so that pods that start together compile once.
        let mut programs = self.programs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(program) = programs.get(&key) {
            return Ok(Arc::clone(program));
        }
        let rules = File::parse(&key.0)
            .and_then(|file| file.decide(self.context(capabilities)))
            .map_err(invalid)?;
        let program: Arc<[u8]> = compile(&rules)?.into();
        if programs.len() >= CACHE_MAX {
            programs.clear();
        }
        programs.insert(key, Arc::clone(&program));
        Ok(program)
    }

    /// The same as a section of an OCI runtime configuration, for a runtime that
    /// compiles it by itself.
    pub(crate) fn section(
        &self,
        profile: &Profile,
        capabilities: CapSet,
    ) -> Result<serde_json::Value, Error> {
        let (text, name) = load(profile)?;
        File::parse(&text)
            .and_then(|file| file.section(self.context(capabilities)))
            .map_err(|why| Error::Invalid {
                path: name.to_owned(),
                why,
            })
    }

    fn context(&self, capabilities: CapSet) -> Context {
        Context {
            capabilities,
            kernel: self.kernel,
        }
    }
}

/// A profile's text and what it is called.
fn load(profile: &Profile) -> Result<(Vec<u8>, &str), Error> {
    Ok(match profile {
        Profile::Default => (DEFAULT.to_vec(), "default"),
        Profile::Localhost(path) => (read(path)?, path.as_str()),
    })
}

fn read(reference: &str) -> Result<Vec<u8>, Error> {
    let path = reference.strip_prefix("localhost/").unwrap_or(reference);
    let invalid = |why: &str| Error::Invalid {
        path: reference.to_owned(),
        why: why.to_owned(),
    };
    if !Path::new(path).is_absolute() || path.contains('\0') {
        return Err(invalid("is not an absolute path"));
    }
    let failed = |source| Error::Read {
        path: reference.to_owned(),
        source,
    };
    let metadata = std::fs::metadata(path).map_err(failed)?;
    if !metadata.is_file() {
        return Err(invalid("is not a file"));
    }
    let mut text = Vec::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(FILE_MAX + 1)
        .read_to_end(&mut text)
        .map_err(failed)?;
    if text.len() as u64 > FILE_MAX {
        return Err(invalid("is larger than 1 MiB"));
    }
    Ok(text)
}

fn compile(rules: &Rules) -> Result<Vec<u8>, Error> {
    let failed = |step| move |source| Error::Compile { step, source };
    let mut filter = ScmpFilterContext::new(rules.default).map_err(failed("begin"))?;
    for architecture in &rules.architectures {
        filter
            .add_arch(*architecture)
            .map_err(failed("add an architecture"))?;
    }
    // A binary search instead of a chain of some four hundred comparisons; libraries
    // before 2.5 do without.
    drop(filter.set_ctl_optimize(2).map_err(failed("optimize")));
    let mut newer = BTreeMap::new();
    for rule in rules
        .list
        .iter()
        .filter(|rule| rule.action != rules.default)
    {
        for name in &rule.names {
            match ScmpSyscall::from_name(name) {
                Ok(call) => add(&mut filter, rule, call).map_err(failed("add a rule"))?,
                // A name that nothing here knows is of a call that nothing here has.
                Err(_) => remember(&mut newer, rule, name),
            }
        }
    }
    let mut program = newer::prologue(&newer, rules.default);
    export(&filter, &mut program)?;
    Ok(program)
}

/// The library writes to descriptors only.
fn export(filter: &ScmpFilterContext, program: &mut Vec<u8>) -> Result<(), Error> {
    let memory = |source| Error::Memory { source };
    let fd = memfd_create("seccomp", MemfdFlags::CLOEXEC).map_err(|e| memory(e.into()))?;
    let mut file = std::fs::File::from(fd);
    filter.export_bpf(&file).map_err(|source| Error::Compile {
        step: "export",
        source,
    })?;
    file.rewind().map_err(memory)?;
    file.read_to_end(program).map_err(memory)?;
    Ok(())
}

fn add(filter: &mut ScmpFilterContext, rule: &Rule, call: ScmpSyscall) -> Result<(), SeccompError> {
    if rule.alternatives.is_empty() {
        return filter.add_rule(rule.action, call).map(drop);
    }
    for comparisons in &rule.alternatives {
        filter.add_rule_conditional(rule.action, call, comparisons)?;
    }
    Ok(())
}

/// The first rule about a call wins, and a rule about arguments needs the library.
fn remember(newer: &mut BTreeMap<u32, ScmpAction>, rule: &Rule, name: &str) {
    if let Some(number) = newer::number(name).filter(|_| rule.alternatives.is_empty()) {
        newer.entry(number).or_insert(rule.action);
    }
}

#[cfg(test)]
#[cfg(target_arch = "x86_64")]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::seccomp::interpreter::{Call, I386, run};

    const ALLOW: u32 = 0x7fff_0000;
    const EPERM: u32 = 0x0005_0001;
    const ENOSYS: u32 = 0x0005_0026;

    fn number(name: &str) -> u32 {
        let call = ScmpSyscall::from_name(name).unwrap();
        u32::try_from(call.as_raw_syscall()).unwrap()
    }

    fn default_with(capabilities: CapSet) -> Arc<[u8]> {
        Compiler::new()
            .program(&Profile::Default, capabilities)
            .unwrap()
    }

    fn ask(program: &[u8], name: &str, args: &[u64]) -> u32 {
        run(program, Call::native(number(name), args))
    }

    fn caps(names: &[&str]) -> CapSet {
        let bits = CapSet::all()
            .names()
            .enumerate()
            .filter(|(_, n)| names.contains(&n.as_str()));
        CapSet::from_bits(bits.map(|(bit, _)| 1 << bit).sum())
    }

    fn localhost(text: &str) -> Result<Arc<[u8]>, Error> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let path = format!("localhost/{}", file.path().display());
        Compiler::new().program(&Profile::Localhost(path), CapSet::container_default())
    }

    #[test]
    fn default_allows_work_and_denies_what_reaches_the_host() {
        let program = default_with(CapSet::container_default());
        for name in [
            "read",
            "write",
            "openat",
            "execve",
            "futex",
            "ptrace",
            "chroot",
            "arch_prctl",
        ] {
            assert_eq!(ask(&program, name, &[]), ALLOW, "{name}");
        }
        let denied = [
            "mount",
            "umount2",
            "keyctl",
            "add_key",
            "io_uring_setup",
            "io_uring_enter",
            "bpf",
            "unshare",
            "setns",
            "reboot",
            "init_module",
            "kexec_load",
            "swapon",
            "userfaultfd",
            "open_by_handle_at",
            "perf_event_open",
            "sethostname",
            "settimeofday",
            "pivot_root",
        ];
        for name in denied {
            assert_eq!(ask(&program, name, &[]), EPERM, "{name}");
        }
    }

    #[test]
    fn default_makes_threads_but_no_namespaces() {
        let program = default_with(CapSet::container_default());
        assert_eq!(ask(&program, "clone", &[0x0001_0f00]), ALLOW);
        for flag in [
            0x0002_0000,
            0x0200_0000,
            0x0400_0000,
            0x0800_0000,
            0x1000_0000,
            0x4000_0000,
        ] {
            assert_eq!(ask(&program, "clone", &[flag | 0x11]), EPERM, "{flag:#x}");
        }
        assert_eq!(ask(&program, "clone3", &[]), ENOSYS);
        let admin = default_with(caps(&["CAP_SYS_ADMIN"]));
        for name in ["clone", "clone3", "mount", "unshare", "sethostname", "bpf"] {
            assert_eq!(ask(&admin, name, &[0x7e02_0000]), ALLOW, "{name}");
        }
    }

    #[test]
    fn default_knows_the_arguments_that_matter() {
        let program = default_with(CapSet::container_default());
        for family in 0..48 {
            let wanted = if [38, 40].contains(&family) {
                EPERM
            } else {
                ALLOW
            };
            assert_eq!(ask(&program, "socket", &[family]), wanted, "{family}");
            // The kernel does not look at the upper half; neither may the filter.
            let disguised = family | 1 << 32;
            assert_eq!(ask(&program, "socket", &[disguised]), wanted, "{family}");
        }
        for (persona, wanted) in [
            (0, ALLOW),
            (8, ALLOW),
            (0x20008, ALLOW),
            (0xffff_ffff, ALLOW),
            (0x40000, EPERM),
        ] {
            assert_eq!(
                ask(&program, "personality", &[persona]),
                wanted,
                "{persona:#x}"
            );
        }
    }

    #[test]
    fn default_opens_with_capabilities() {
        let cases = [
            ("CAP_SYS_BOOT", "reboot"),
            ("CAP_SYS_MODULE", "finit_module"),
            ("CAP_SYS_TIME", "clock_settime"),
            ("CAP_BPF", "bpf"),
            ("CAP_PERFMON", "perf_event_open"),
            ("CAP_SYS_NICE", "mbind"),
            ("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
        ];
        let without = default_with(CapSet::default());
        for (capability, name) in cases {
            assert_eq!(ask(&without, name, &[]), EPERM, "{name}");
            assert_eq!(
                ask(&default_with(caps(&[capability])), name, &[]),
                ALLOW,
                "{name}"
            );
        }
        assert_eq!(ask(&without, "chroot", &[]), EPERM);
    }

    #[test]
    fn default_covers_other_calling_conventions_and_newer_calls() {
        let program = default_with(CapSet::container_default());
        let (read_32, mount_32) = (3, 21);
        assert_eq!(run(&program, Call::of(I386, read_32, &[])), ALLOW);
        assert_eq!(run(&program, Call::of(I386, mount_32, &[])), EPERM);
        assert_eq!(run(&program, Call::native(0x4000_0000, &[])), ALLOW);
        let (fchmodat2, statmount) = (452, 457);
        assert_eq!(run(&program, Call::native(fchmodat2, &[])), ALLOW);
        assert_eq!(run(&program, Call::native(statmount, &[])), EPERM);
        assert_eq!(run(&program, Call::native(700, &[])), ENOSYS);
        let arm_private = 0x000f_0002;
        assert_ne!(run(&program, Call::native(arm_private, &[])), ENOSYS);
        let arm = 0xc000_00b7;
        assert_eq!(
            run(&program, Call::of(arm, 0, &[])),
            0,
            "a foreign machine's calls kill"
        );
    }

    #[test]
    fn the_kernel_takes_the_program_and_keeps_to_it() {
        let program = default_with(CapSet::container_default());
        // A filter is its thread's own, and ends with it.
        let denied = std::thread::spawn(move || {
            carpel_sys::seccomp::load(&program).unwrap();
            let unmount =
                rustix::mount::unmount("/nonexistent", rustix::mount::UnmountFlags::empty());
            let readable = std::fs::read("/proc/self/stat").is_ok();
            (unmount, readable)
        });
        assert_eq!(denied.join().unwrap(), (Err(rustix::io::Errno::PERM), true));
    }

    #[test]
    fn a_localhost_profile_is_read_and_obeyed() {
        let program = localhost(
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["chmod", "fchmodat", "statmount", "no_such_call"], "action": "SCMP_ACT_ERRNO"}]}"#,
        )
        .unwrap();
        assert_eq!(ask(&program, "chmod", &[]), EPERM);
        assert_eq!(run(&program, Call::native(457, &[])), EPERM);
        assert_eq!(ask(&program, "mount", &[]), ALLOW);
    }

    #[test]
    fn a_bad_reference_is_named() {
        let compiler = Compiler::new();
        let try_path = |path: &str| {
            let profile = Profile::Localhost(path.to_owned());
            compiler
                .program(&profile, CapSet::default())
                .unwrap_err()
                .to_string()
        };
        assert!(
            try_path("profiles/x.json").contains("\"profiles/x.json\": is not an absolute path")
        );
        assert!(try_path("localhost//nonexistent/x.json").starts_with("read seccomp profile"));
        assert!(try_path("/tmp").contains("is not a file"));
        assert!(
            localhost("garbage")
                .unwrap_err()
                .to_string()
                .contains("is not a profile")
        );
    }

    #[test]
    fn a_profile_is_compiled_once_for_its_content() {
        let compiler = Compiler::new();
        let caps = CapSet::container_default();
        let first = compiler.program(&Profile::Default, caps).unwrap();
        let again = compiler.program(&Profile::Default, caps).unwrap();
        assert!(Arc::ptr_eq(&first, &again));
        let other = compiler
            .program(&Profile::Default, CapSet::default())
            .unwrap();
        assert!(!Arc::ptr_eq(&first, &other));

        let mut file = tempfile::NamedTempFile::new().unwrap();
        let profile = Profile::Localhost(file.path().display().to_string());
        file.write_all(br#"{"defaultAction": "SCMP_ACT_ALLOW"}"#)
            .unwrap();
        let before = compiler.program(&profile, caps).unwrap();
        file.as_file_mut().set_len(0).unwrap();
        std::fs::write(file.path(), br#"{"defaultAction": "SCMP_ACT_LOG"}"#).unwrap();
        let after = compiler.program(&profile, caps).unwrap();
        assert_ne!(before, after);
    }
}
