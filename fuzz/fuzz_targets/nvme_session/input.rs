//! An input, read as choices: past its end there are zeroes.

use lsvd_nvmet::wire::Digests;

/// The rest of an input; past its end there are zeroes.
#[derive(Clone, Copy)]
pub struct Choices<'a>(pub &'a [u8]);

impl<'a> Choices<'a> {
    pub fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    pub fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (head, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        head
    }

    pub fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        all[usize::from(self.byte()) % all.len()]
    }
}

/// What the first two bytes say.
#[derive(Clone, Copy)]
pub struct Setup(pub u8, pub u8);

impl Setup {
    pub fn digests(self) -> Digests {
        Digests::from_field(self.0 & 3)
    }

    /// Payload may reach its limit; what waits for room depends on what has been sent. Seldom: such
    /// runs take long.
    pub fn is_large(self) -> bool {
        self.1 & 0xfc == 0xfc
    }

    /// The outcome is that of the bytes delivered at once.
    pub fn is_compared(self) -> bool {
        self.1 & 1 == 0 && !self.is_large()
    }

    pub fn without_handshake(self) -> bool {
        self.0 & 4 != 0
    }

    pub fn without_flow_control(self) -> bool {
        self.0 & 8 != 0
    }

    pub fn is_deferred(self) -> bool {
        self.0 & 16 != 0
    }

    pub fn ana_reporting(self) -> bool {
        self.0 & 32 != 0
    }

    /// 0-based entries of the I/O queue.
    pub fn sqsize(self) -> u16 {
        if self.0 & 128 != 0 { 3 } else { 127 }
    }
}

/// How PDUs are cut into pieces.
#[derive(Clone, Copy)]
pub enum Pieces {
    Whole,
    /// Pieces of different lengths; what is no PDU of a host stays whole if the outcome is compared,
    /// because several commands in one piece may be answered in another order than one by one.
    Random {
        state: u32,
        is_compared: bool,
    },
}

impl Pieces {
    pub fn next(&mut self, is_wild: bool, bytes_left: usize) -> usize {
        let Self::Random { state, is_compared } = self else { return bytes_left };
        if *is_compared && is_wild {
            return bytes_left;
        }
        *state ^= *state << 13;
        *state ^= *state >> 17;
        *state ^= *state << 5;
        let most = if *state & 0x300 == 0 { 4096 } else { 32 };
        let least = bytes_left / 64;
        (least + 1 + (*state >> 16) as usize % most).min(bytes_left)
    }
}
