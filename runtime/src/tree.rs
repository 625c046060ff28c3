//! The holder's own mount tree: a procfs, a null device, the pod's shared memory.

use std::path::Path;

use carpel_sys::mount::{self, Attr, Flags, Propagation};
use rustix::fs::{CWD, FileType, Mode, OFlags};

use crate::error::{Context, Result};

/// A few directories and a device.
const SIZE: u64 = 64 << 10;
const MODE: u32 = 0o711;

/// Leaves the host's mounts for a tree that holds none of them: as long as this
/// process stood in the host's tree, or a copy of it, each mount of the host would
/// be kept busy by every pod.
pub(crate) fn enter(shm_size: u64) -> Result<()> {
    let slave = Attr::propagation(Propagation::Slave);
    mount::set_attr_at(CWD, Path::new("/"), &slave, true).during("make all mounts slaves")?;

    let plain = Flags::NOSUID | Flags::NOEXEC;
    let root = mount::tmpfs(Some(SIZE), MODE, plain).during("make the holder's root")?;
    for dir in ["proc", "dev", "shm"] {
        rustix::fs::mkdirat(&root, dir, Mode::from_raw_mode(MODE))
            .during(format!("make /{dir} of the holder"))?;
    }
    let null = rustix::fs::makedev(1, 3);
    let mode = Mode::from_raw_mode(0o666);
    rustix::fs::mknodat(&root, "dev/null", FileType::CharacterDevice, mode, null)
        .during("make /dev/null of the holder")?;

    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let old = rustix::fs::open("/", flags, Mode::empty()).during("open /")?;
    mount::attach(&root, &old).during("attach the holder's root")?;
    drop(old);
    let proc =
        mount::new_fs("proc", &[], plain | Flags::NODEV).during("make the holder's procfs")?;
    mount::attach_at(&proc, &root, "proc").during("attach the holder's procfs")?;
    if shm_size > 0 {
        let shm = mount::tmpfs(Some(shm_size), 0o1777, plain | Flags::NODEV)
            .during(format!("make a shared memory of {shm_size} bytes"))?;
        mount::attach_at(&shm, &root, "shm").during("attach the shared memory")?;
    }
    rustix::process::fchdir(&root).during("enter the holder's root")?;
    mount::pivot_to_cwd().during("leave the host's mounts")?;
    // Its mounts stay as they are: nobody has to write to the root itself.
    let sealed = Attr::set(Flags::READ_ONLY);
    mount::set_attr(&root, &sealed, false).during("make the holder's root read-only")
}
