//! Which device nodes the processes of a group may use.

use std::path::Path;

use carpel_sys::bpf;
use rustix::fs::{Mode, OFlags};

use crate::error::{Error, Result};
use crate::files;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceKind {
    All,
    Block,
    Character,
}

/// Later rules win over earlier ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceRule {
    pub allow: bool,
    pub kind: DeviceKind,
    /// None: any.
    pub major: Option<u32>,
    pub minor: Option<u32>,
    /// Of `r`, `w`, `m`.
    pub access: String,
}

impl DeviceRule {
    fn v1_text(&self) -> String {
        let number = |n: Option<u32>| n.map_or_else(|| "*".to_owned(), |n| n.to_string());
        match self.kind {
            DeviceKind::All => "a".into(),
            DeviceKind::Block => self.v1_line('b', &number),
            DeviceKind::Character => self.v1_line('c', &number),
        }
    }

    fn v1_line(&self, kind: char, number: &dyn Fn(Option<u32>) -> String) -> String {
        format!(
            "{kind} {}:{} {}",
            number(self.major),
            number(self.minor),
            self.access
        )
    }
}

/// Tells the v1 devices controller, which takes one rule a write.
pub(crate) fn apply_v1(dir: &Path, rules: &[DeviceRule]) -> Result<()> {
    for rule in rules {
        let file = if rule.allow {
            "devices.allow"
        } else {
            "devices.deny"
        };
        files::write(&dir.join(file), &rule.v1_text())?;
    }
    Ok(())
}

/// Under v2 a program decides; it is attached to the group for as long as that lives.
pub(crate) fn apply_v2(dir: &Path, rules: &[DeviceRule]) -> Result<()> {
    let group = rustix::fs::open(
        dir,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(|errno| Error::io("open", dir)(errno.into()))?;
    bpf::attach_device_program(&group, &program(rules))
        .map_err(Error::io("attach a device filter to", dir))
}

/// `struct bpf_insn`: opcode, registers, offset, immediate.
fn instruction(code: u8, dst: u8, src: u8, offset: i16, value: i32) -> bpf::Instruction {
    bpf::Instruction {
        code,
        registers: dst | (src << 4),
        offset,
        value,
    }
}

const R0: u8 = 0;
const R1: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const SCRATCH: u8 = 6;

const LOAD_WORD: u8 = 0x61;
const MOVE_REGISTER: u8 = 0xbf;
const MOVE_VALUE: u8 = 0xb7;
const AND_VALUE: u8 = 0x57;
const SHIFT_RIGHT: u8 = 0x77;
const JUMP_NOT_EQUAL: u8 = 0x55;
const EXIT: u8 = 0x95;

/// The rules as a program of type BPF_PROG_TYPE_CGROUP_DEVICE: 1 allows, 0 denies.
///
/// Its argument is `struct bpf_cgroup_dev_ctx { u32 access_type, major, minor }`; the
/// low half of the first word is the kind of device, the high half the access. The
/// last rule that matches decides, so they are tried from the end.
fn program(rules: &[DeviceRule]) -> Vec<bpf::Instruction> {
    let mut code = vec![
        instruction(LOAD_WORD, KIND, R1, 0, 0),
        instruction(MOVE_REGISTER, ACCESS, KIND, 0, 0),
        instruction(AND_VALUE, KIND, 0, 0, 0xffff),
        instruction(SHIFT_RIGHT, ACCESS, 0, 0, 16),
        instruction(LOAD_WORD, MAJOR, R1, 4, 0),
        instruction(LOAD_WORD, MINOR, R1, 8, 0),
    ];
    for rule in rules.iter().rev() {
        code.extend(rule_block(rule));
        if rule.kind == DeviceKind::All {
            // It matches everything: what follows could never be reached, and the
            // kernel refuses programs with unreachable parts.
            return code;
        }
    }
    code.push(instruction(MOVE_VALUE, R0, 0, 0, 0));
    code.push(instruction(EXIT, 0, 0, 0, 0));
    code
}

fn rule_block(rule: &DeviceRule) -> Vec<bpf::Instruction> {
    let verdict = [
        instruction(MOVE_VALUE, R0, 0, 0, i32::from(rule.allow)),
        instruction(EXIT, 0, 0, 0, 0),
    ];
    // BPF_DEVCG_DEV_BLOCK 1, BPF_DEVCG_DEV_CHAR 2
    let kind = match rule.kind {
        DeviceKind::All => return verdict.to_vec(),
        DeviceKind::Block => 1,
        DeviceKind::Character => 2,
    };
    let mut tests = vec![instruction(JUMP_NOT_EQUAL, KIND, 0, 0, kind)];
    let mask = access_mask(&rule.access);
    if mask != 7 {
        // Every access asked for must be among those the rule speaks of.
        tests.push(instruction(MOVE_REGISTER, SCRATCH, ACCESS, 0, 0));
        tests.push(instruction(AND_VALUE, SCRATCH, 0, 0, !mask & 7));
        tests.push(instruction(JUMP_NOT_EQUAL, SCRATCH, 0, 0, 0));
    }
    for (register, number) in [(MAJOR, rule.major), (MINOR, rule.minor)] {
        if let Some(number) = number {
            tests.push(instruction(
                JUMP_NOT_EQUAL,
                register,
                0,
                0,
                number.cast_signed(),
            ));
        }
    }
    let length = tests.len() + verdict.len();
    for (i, test) in tests.iter_mut().enumerate() {
        if test.code == JUMP_NOT_EQUAL {
            test.offset = i16::try_from(length - i - 1).unwrap_or(i16::MAX);
        }
    }
    tests.extend(verdict);
    tests
}

/// BPF_DEVCG_ACC_MKNOD 1, BPF_DEVCG_ACC_READ 2, BPF_DEVCG_ACC_WRITE 4
fn access_mask(access: &str) -> i32 {
    access.chars().fold(0, |mask, c| {
        mask | match c {
            'm' => 1,
            'r' => 2,
            'w' => 4,
            _ => 0,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(allow: bool, kind: DeviceKind, major: Option<u32>, access: &str) -> DeviceRule {
        DeviceRule {
            allow,
            kind,
            major,
            minor: None,
            access: access.into(),
        }
    }

    /// Runs a program as the kernel would.
    fn run(code: &[bpf::Instruction], kind: u64, access: u64, major: u64, minor: u64) -> u64 {
        let mut registers = [0u64; 11];
        let words = [kind | (access << 16), major, minor];
        let mut at = 0usize;
        for _ in 0..10_000 {
            let i = &code[at];
            let (dst, src) = (usize::from(i.registers & 15), usize::from(i.registers >> 4));
            let value = u64::try_from(i.value).unwrap_or_else(|_| i.value as u64);
            at += 1;
            match i.code {
                LOAD_WORD => registers[dst] = words[usize::try_from(i.offset).unwrap() / 4],
                MOVE_REGISTER => registers[dst] = registers[src],
                MOVE_VALUE => registers[dst] = value,
                AND_VALUE => registers[dst] &= value,
                SHIFT_RIGHT => registers[dst] >>= value,
                JUMP_NOT_EQUAL if registers[dst] != value => {
                    at += usize::try_from(i.offset).unwrap()
                }
                JUMP_NOT_EQUAL => {}
                EXIT => return registers[0],
                other => panic!("unknown instruction {other:#x}"),
            }
        }
        panic!("the program does not end");
    }

    #[test]
    fn the_program_decides_as_the_rules_say() {
        let rules = [
            rule(false, DeviceKind::All, None, "rwm"),
            rule(true, DeviceKind::Character, Some(1), "rw"),
            rule(true, DeviceKind::Block, None, "m"),
        ];
        let code = program(&rules);
        let (block, character, mknod, read, write) = (1, 2, 1, 2, 4);
        assert_eq!(run(&code, character, read | write, 1, 3), 1);
        assert_eq!(run(&code, character, mknod, 1, 3), 0);
        assert_eq!(run(&code, character, read, 2, 3), 0);
        assert_eq!(run(&code, block, mknod, 8, 0), 1);
        assert_eq!(run(&code, block, read, 8, 0), 0);
    }

    #[test]
    fn no_rule_denies_and_a_later_one_wins() {
        assert_eq!(run(&program(&[]), 2, 2, 1, 3), 0);
        let all = program(&[
            rule(false, DeviceKind::All, None, "rwm"),
            rule(true, DeviceKind::All, None, "rwm"),
        ]);
        assert_eq!(run(&all, 1, 7, 8, 0), 1);
    }

    #[test]
    fn v1_rules_read_as_the_controller_wants_them() {
        let mut one = rule(true, DeviceKind::Character, Some(1), "rwm");
        one.minor = Some(3);
        assert_eq!(one.v1_text(), "c 1:3 rwm");
        assert_eq!(
            rule(true, DeviceKind::Block, None, "m").v1_text(),
            "b *:* m"
        );
        assert_eq!(rule(false, DeviceKind::All, None, "rwm").v1_text(), "a");
    }

    #[test]
    fn the_kernel_accepts_the_program() {
        let mut rules = vec![rule(false, DeviceKind::All, None, "rwm")];
        for major in 1..40 {
            rules.push(rule(true, DeviceKind::Character, Some(major), "rw"));
        }
        match bpf::load_device_program(&program(&rules)) {
            Ok(program) => drop(program),
            // Kernels without CONFIG_CGROUP_BPF.
            Err(error) => assert_eq!(error.raw_os_error(), Some(22), "{error}"),
        }
    }
}
