//! System calls that are newer than the library.
//!
//! Since Linux 5.1 a new call has the same number everywhere. The library in use may
//! not know the name, so that a rule about it would be lost and a program that tries
//! it would be told EPERM instead of the ENOSYS after which it falls back. A few
//! instructions before the library's program settle both.

use std::collections::BTreeMap;

use libseccomp::ScmpAction;

/// Newest call that this table knows; later ones do not exist for a container.
const LAST: u32 = 469;

const CALLS: [(&str, u32); 20] = [
    ("set_mempolicy_home_node", 450),
    ("cachestat", 451),
    ("fchmodat2", 452),
    ("map_shadow_stack", 453),
    ("futex_wake", 454),
    ("futex_wait", 455),
    ("futex_requeue", 456),
    ("statmount", 457),
    ("listmount", 458),
    ("lsm_get_self_attr", 459),
    ("lsm_set_self_attr", 460),
    ("lsm_list_modules", 461),
    ("mseal", 462),
    ("setxattrat", 463),
    ("getxattrat", 464),
    ("listxattrat", 465),
    ("removexattrat", 466),
    ("open_tree_attr", 467),
    ("file_getattr", 468),
    ("file_setattr", LAST),
];

/// Numbers from here on are of calling conventions that count differently: those of
/// MIPS, ARM's private calls, x32.
const ELSEWHERE: u32 = 4000;
const ENOSYS: i32 = 38;

const LOAD: u16 = 0x20;
const JUMP: u16 = 0x05;
const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_GREATER: u16 = 0x25;
const JUMP_IF_GREATER_OR_EQUAL: u16 = 0x35;
const RETURN: u16 = 0x06;

/// Number of a call in the table.
pub(super) fn number(name: &str) -> Option<u32> {
    CALLS
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, number)| *number)
}

/// Instructions to stand before the library's: the verdict on each number given, and
/// ENOSYS for what is newer than the table if the profile denies by default.
pub(super) fn prologue(verdicts: &BTreeMap<u32, ScmpAction>, default: ScmpAction) -> Vec<u8> {
    let unknown = matches!(default, ScmpAction::Errno(_)).then_some(ScmpAction::Errno(ENOSYS));
    if verdicts.is_empty() && unknown.is_none() {
        return Vec::new();
    }
    let mut body = Vec::new();
    for (number, action) in verdicts {
        body.push((JUMP_IF_EQUAL, 0, 1, *number));
        body.push((RETURN, 0, 0, verdict(*action)));
    }
    if let Some(action) = unknown {
        body.push((JUMP_IF_GREATER, 0, 1, LAST));
        body.push((RETURN, 0, 0, verdict(action)));
    }
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let mut program = vec![
        (LOAD, 0, 0, 0),
        (JUMP_IF_GREATER_OR_EQUAL, 0, 1, ELSEWHERE),
        (JUMP, 0, 0, length),
    ];
    program.extend(body);
    program.into_iter().flat_map(encode).collect()
}

/// `struct sock_filter`.
fn encode((code, yes, no, value): (u16, u8, u8, u32)) -> [u8; 8] {
    let [c0, c1] = code.to_ne_bytes();
    let [v0, v1, v2, v3] = value.to_ne_bytes();
    [c0, c1, yes, no, v0, v1, v2, v3]
}

fn verdict(action: ScmpAction) -> u32 {
    match action {
        ScmpAction::Allow => 0x7fff_0000,
        ScmpAction::Log => 0x7ffc_0000,
        ScmpAction::Trace(value) => 0x7ff0_0000 | u32::from(value),
        ScmpAction::Errno(value) => 0x0005_0000 | (value.cast_unsigned() & 0xffff),
        ScmpAction::Trap => 0x0003_0000,
        ScmpAction::KillProcess => 0x8000_0000,
        // All that is left ends the thread.
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seccomp::interpreter::{Call, run};

    const FALLTHROUGH: u32 = 0x7ffc_0000;

    fn ask(prologue: &[u8], number: u32) -> u32 {
        let mut program = prologue.to_vec();
        program.extend(encode((RETURN, 0, 0, FALLTHROUGH)));
        run(&program, Call::native(number, &[]))
    }

    #[test]
    fn named_calls_get_their_verdict_and_newer_ones_do_not_exist() {
        let verdicts = BTreeMap::from([(452, ScmpAction::Allow)]);
        let program = prologue(&verdicts, ScmpAction::Errno(1));
        assert_eq!(ask(&program, 452), 0x7fff_0000);
        assert_eq!(ask(&program, LAST + 1), 0x0005_0026);
        for number in [0, 451, LAST, ELSEWHERE, 0x000f_0002, 0x4000_01c4, u32::MAX] {
            assert_eq!(ask(&program, number), FALLTHROUGH, "{number}");
        }
    }

    #[test]
    fn a_profile_that_allows_by_default_has_no_opinion_on_newer_calls() {
        assert!(prologue(&BTreeMap::new(), ScmpAction::Allow).is_empty());
        let verdicts = BTreeMap::from([(457, ScmpAction::Errno(1))]);
        let program = prologue(&verdicts, ScmpAction::Allow);
        assert_eq!(ask(&program, 457), 0x0005_0001);
        assert_eq!(ask(&program, LAST + 1), FALLTHROUGH);
    }
}
