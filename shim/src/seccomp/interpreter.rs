//! Runs a filter as the kernel would, for tests.

/// What a filter is asked about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    data: [u32; 16],
}

const X86_64: u32 = 0xc000_003e;
pub(super) const I386: u32 = 0x4000_0003;

impl Call {
    pub(super) fn native(number: u32, args: &[u64]) -> Self {
        Self::of(X86_64, number, args)
    }

    /// Number, architecture, instruction pointer and six arguments, as 32-bit words
    /// of a little-endian machine.
    pub(super) fn of(architecture: u32, number: u32, args: &[u64]) -> Self {
        let mut data = [0; 16];
        data[0] = number;
        data[1] = architecture;
        for (index, arg) in args.iter().enumerate() {
            data[4 + 2 * index] = u32::try_from(arg & 0xffff_ffff).unwrap();
            data[5 + 2 * index] = u32::try_from(arg >> 32).unwrap();
        }
        Self { data }
    }
}

/// The filter's verdict.
pub(super) fn run(program: &[u8], call: Call) -> u32 {
    let (instructions, rest) = program.as_chunks::<8>();
    assert!(rest.is_empty(), "the program ends within an instruction");
    let mut accumulator = 0_u32;
    let mut at = 0;
    loop {
        let [c0, c1, yes, no, value @ ..] = instructions[at];
        let value = u32::from_ne_bytes(value);
        let branch = |taken: bool| usize::from(if taken { yes } else { no });
        at += 1;
        at += match u16::from_ne_bytes([c0, c1]) {
            0x20 => {
                accumulator = call.data[value as usize / 4];
                0
            }
            0x54 => {
                accumulator &= value;
                0
            }
            0x05 => value as usize,
            0x15 => branch(accumulator == value),
            0x25 => branch(accumulator > value),
            0x35 => branch(accumulator >= value),
            0x45 => branch(accumulator & value != 0),
            0x06 => return value,
            code => panic!("instruction {code:#x} at {at}"),
        };
    }
}
