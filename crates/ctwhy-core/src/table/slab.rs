//! Values in blocks of memory, each under a small number of its own.

use alloc::vec::Vec;

/// Values in a block. A table that grows takes one block more, and moves nothing.
const BLOCK: usize = 1 << 10;

/// Values in the order of their numbers.
#[derive(Clone, Debug)]
pub(super) struct Blocks<T> {
    blocks: Vec<Vec<T>>,
    len: usize,
}

impl<T> Blocks<T> {
    pub(super) const fn new() -> Blocks<T> {
        Blocks { blocks: Vec::new(), len: 0 }
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) fn get(&self, number: usize) -> Option<&T> {
        self.blocks.get(number / BLOCK)?.get(number % BLOCK)
    }

    pub(super) fn get_mut(&mut self, number: usize) -> Option<&mut T> {
        self.blocks.get_mut(number / BLOCK)?.get_mut(number % BLOCK)
    }

    /// Puts a value behind the last one and says under which number.
    pub(super) fn push(&mut self, value: T) -> usize {
        match self.blocks.last_mut() {
            Some(block) if block.len() < BLOCK => block.push(value),
            _ => {
                let mut block = Vec::with_capacity(BLOCK);
                block.push(value);
                self.blocks.push(block);
            }
        }
        self.len += 1;
        self.len - 1
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.blocks.iter().flatten()
    }
}

/// Values by number. Numbers of removed values are given out again.
#[derive(Clone, Debug)]
pub(super) struct Slab<T> {
    values: Blocks<T>,
    free: Vec<u32>,
}

impl<T: Copy> Slab<T> {
    pub(super) const fn new() -> Slab<T> {
        Slab { values: Blocks::new(), free: Vec::new() }
    }

    /// Keeps a value and says under which number.
    pub(super) fn insert(&mut self, value: T) -> u32 {
        if let Some(number) = self.free.pop()
            && let Some(place) = self.values.get_mut(number as usize)
        {
            *place = value;
            return number;
        }
        self.values.push(value) as u32
    }

    pub(super) fn get(&self, number: u32) -> Option<&T> {
        self.values.get(number as usize)
    }

    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        self.values.get_mut(number as usize)
    }

    /// How many values there are.
    pub(super) fn in_use(&self) -> usize {
        self.values.len() - self.free.len()
    }

    /// Gives the number of a value back. It must be one that [`Slab::insert`] gave, and not be used again.
    pub(super) fn remove(&mut self, number: u32) {
        self.free.push(number);
    }
}
