//! The one thing a new network namespace needs before anybody configures it.

use std::io;
use std::os::fd::AsRawFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType};

const UP: libc::c_short = 1; // IFF_UP

/// Brings the loopback device of the current network namespace up; the kernel
/// gives it its addresses.
pub fn loopback_up() -> io::Result<()> {
    let socket = rustix::net::socket_with(
        AddressFamily::INET,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    let mut name = [0; libc::IFNAMSIZ];
    name[0] = libc::c_char::try_from(b'l').unwrap_or_default();
    name[1] = libc::c_char::try_from(b'o').unwrap_or_default();
    let mut request = libc::ifreq {
        ifr_name: name,
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: 0 },
    };
    // SAFETY: both calls read and write one `ifreq`, which lives through them.
    let read = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS, &raw mut request) };
    if read != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just filled `ifru_flags`, which was valid before too.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    request.ifr_ifru.ifru_flags = flags | UP;
    // SAFETY: as above.
    let set = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw mut request) };
    if set == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_new_namespace_gets_its_loopback() {
        // In a thread of its own: the namespace goes with it.
        std::thread::spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            let before = std::net::TcpStream::connect("127.0.0.1:1").unwrap_err();
            assert_eq!(before.kind(), io::ErrorKind::NetworkUnreachable);
            loopback_up().unwrap();
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        })
        .join()
        .unwrap();
    }
}
