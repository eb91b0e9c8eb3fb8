//! Where the choices of a random case come from.

use proptest::prelude::*;

/// A tape of numbers that choices are read from. 0, which stands behind its end too, is always the
/// simplest choice, so a case shrinks as its tape does.
#[derive(Debug)]
pub(crate) struct Dice {
    tape: Vec<u32>,
    at: usize,
}

impl Dice {
    pub(crate) fn new(tape: Vec<u32>) -> Self {
        Dice { tape, at: 0 }
    }

    /// A tape that follows from a seed alone (SplitMix64).
    pub(crate) fn of_seed(seed: u64) -> Self {
        let mut state = seed;
        let tape = std::iter::repeat_with(|| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut word = state;
            word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((word ^ (word >> 31)) >> 32) as u32
        });
        Dice::new(tape.take(2_000).collect())
    }

    /// A number below `count`.
    pub(crate) fn below(&mut self, count: u32) -> u32 {
        let word = self.tape.get(self.at).copied().unwrap_or(0);
        self.at += 1;
        word % count
    }

    /// True in so many of a hundred cases.
    pub(crate) fn chance(&mut self, percent: u32) -> bool {
        self.below(100) >= 100 - percent
    }

    pub(crate) fn one_of<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        let count = u32::try_from(items.len()).unwrap();
        if count == 0 { None } else { items.get(self.below(count) as usize) }
    }
}

pub(crate) fn tapes() -> impl Strategy<Value = Vec<u32>> {
    prop::collection::vec(any::<u32>(), 0..700)
}
