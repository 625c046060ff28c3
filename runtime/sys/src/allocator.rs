//! What the C library's allocator keeps of freed memory.

/// Larger blocks are mapped on their own, and unmapped when they are freed.
#[cfg(target_env = "gnu")]
const LARGE: libc::c_int = 256 << 10;

/// Makes freed blocks of 256 KiB and more go back to the system at once.
///
/// The GNU allocator raises its limit for that to the largest block that was freed, up
/// to 32 MiB, and keeps such blocks in each of its arenas from then on: a few large
/// replies would stay in memory for as long as the process lives. Other C libraries
/// have no such limit, and nothing is done there.
pub fn return_large_blocks() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt takes two integers; it locks what it changes.
    unsafe {
        // It fails for parameters it does not know, and then all is as it was.
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
    }
}

#[cfg(all(test, target_env = "gnu"))]
mod tests {
    use super::*;

    fn resident() -> u64 {
        let text = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.and_then(|line| line.split_whitespace().next())
            .and_then(|figure| figure.parse().ok())
            .unwrap()
    }

    #[test]
    fn what_is_freed_does_not_stay() {
        return_large_blocks();
        let before = resident();
        for _ in 0..8 {
            let blocks: Vec<Vec<u8>> = (0..4).map(|_| vec![1; 4 << 20]).collect();
            assert!(resident() > before + (12 << 10));
            drop(blocks);
        }
        assert!(resident() < before + (8 << 10));
    }
}
