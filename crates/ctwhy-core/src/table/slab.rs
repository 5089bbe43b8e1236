//! Values in one block of memory, each under a small number of its own.

use alloc::vec::Vec;

/// Values by number. Numbers of removed values are given out again.
#[derive(Clone, Debug)]
pub(super) struct Slab<T> {
    values: Vec<T>,
    free: Vec<u32>,
}

impl<T: Copy> Slab<T> {
    pub(super) const fn new() -> Slab<T> {
        Slab { values: Vec::new(), free: Vec::new() }
    }

    /// Keeps a value and says under which number.
    pub(super) fn insert(&mut self, value: T) -> u32 {
        match self.free.pop() {
            Some(number) => {
                if let Some(place) = self.values.get_mut(number as usize) {
                    *place = value;
                }
                number
            }
            None => {
                self.values.push(value);
                (self.values.len() - 1) as u32
            }
        }
    }

    pub(super) fn get(&self, number: u32) -> Option<&T> {
        self.values.get(number as usize)
    }

    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        self.values.get_mut(number as usize)
    }

    /// Gives the number of a value back. It must be one that [`Slab::insert`] gave, and not be used again.
    pub(super) fn remove(&mut self, number: u32) {
        self.free.push(number);
    }
}
