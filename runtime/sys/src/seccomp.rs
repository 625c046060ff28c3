//! Loading of a compiled system call filter.

use std::io;

/// As many instructions as the kernel takes.
const MAX_INSTRUCTIONS: usize = 4096;
const INSTRUCTION: usize = size_of::<libc::sock_filter>();

/// Puts a filter on this thread and all it executes, for good.
///
/// `program` is an array of `struct sock_filter` in this machine's byte order. The
/// thread needs no_new_privs or CAP_SYS_ADMIN.
pub fn load(program: &[u8]) -> io::Result<()> {
    let mut filter = parse(program)?;
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).unwrap_or(u16::MAX),
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: `program` describes `filter`, which outlives the call; the kernel
    // copies the instructions and checks them.
    let done = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            0,
            std::ptr::from_ref(&program),
        )
    };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn parse(program: &[u8]) -> io::Result<Vec<libc::sock_filter>> {
    let (instructions, rest) = program.as_chunks::<INSTRUCTION>();
    let count = instructions.len();
    if !rest.is_empty() || count == 0 || count > MAX_INSTRUCTIONS {
        let message = format!("{} bytes are no seccomp program", program.len());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    let decode = |raw: &[u8; INSTRUCTION]| libc::sock_filter {
        code: u16::from_ne_bytes([raw[0], raw[1]]),
        jt: raw[2],
        jf: raw[3],
        k: u32::from_ne_bytes([raw[4], raw[5], raw[6], raw[7]]),
    };
    Ok(instructions.iter().map(decode).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instruction(code: u16, jt: u8, jf: u8, k: u32) -> Vec<u8> {
        [&code.to_ne_bytes()[..], &[jt, jf], &k.to_ne_bytes()].concat()
    }

    #[test]
    fn half_and_empty_programs_are_refused() {
        for bad in [0, 7, 9, INSTRUCTION * (MAX_INSTRUCTIONS + 1)] {
            let error = load(&vec![0; bad]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        }
    }

    #[test]
    fn a_filter_takes_a_call_away() {
        let uname = u32::try_from(libc::SYS_uname).unwrap();
        let refuse = libc::SECCOMP_RET_ERRNO | libc::EXDEV.cast_unsigned();
        // Load the call's number; if it is uname, refuse it; allow all others.
        let program = [
            instruction(0x20, 0, 0, 0),
            instruction(0x15, 0, 1, uname),
            instruction(0x06, 0, 0, refuse),
            instruction(0x06, 0, 0, libc::SECCOMP_RET_ALLOW),
        ]
        .concat();
        std::thread::spawn(move || {
            nix::sys::utsname::uname().unwrap();
            crate::credentials::set_no_new_privileges().unwrap();
            load(&program).unwrap();
            assert_eq!(
                nix::sys::utsname::uname().unwrap_err(),
                nix::errno::Errno::EXDEV
            );
        })
        .join()
        .unwrap();
    }
}
