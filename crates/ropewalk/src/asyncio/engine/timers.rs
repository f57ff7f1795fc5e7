//! Timers: a heap of four children a node, with lazy cancellation.
//!
//! Four children halve the depth of a binary heap and share a cache line or two, and most timers are cancelled
//! before they are due: a cancelled one stays where it is until it comes to the top, or until more than half of
//! the heap is such.

use std::collections::VecDeque;

use super::{Host, Nanos};

const ARITY: usize = 4;
/// Fewer cancelled timers than this are not worth a rebuild.
const MANY: usize = 64;

struct Timer<E> {
    when: Nanos,
    /// Order of insertion, for equal deadlines.
    order: u64,
    entry: E,
}

impl<E> Timer<E> {
    fn key(&self) -> (Nanos, u64) {
        (self.when, self.order)
    }
}

/// The entries that wait for a time.
pub struct Timers<H: Host> {
    heap: Vec<Timer<H::Entry>>,
    inserted: u64,
    cancelled: usize,
}

impl<H: Host> Timers<H> {
    pub(super) fn new() -> Self {
        Self {
            heap: Vec::new(),
            inserted: 0,
            cancelled: 0,
        }
    }

    /// How many timers there are, those cancelled but not yet dropped among them.
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether there is no timer.
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    /// The entries in no particular order, for garbage collectors and debuggers.
    pub fn iter(&self) -> impl Iterator<Item = &H::Entry> {
        self.heap.iter().map(|timer| &timer.entry)
    }

    /// Takes every timer out, for a loop that closes.
    pub fn take(&mut self) -> impl Iterator<Item = H::Entry> + use<H> {
        self.cancelled = 0;
        std::mem::take(&mut self.heap)
            .into_iter()
            .map(|timer| timer.entry)
    }

    /// The earliest deadline.
    pub fn next(&self) -> Option<Nanos> {
        self.heap.first().map(|timer| timer.when)
    }

    #[inline]
    pub(super) fn insert(&mut self, when: Nanos, entry: H::Entry) {
        let order = self.inserted;
        self.inserted += 1;
        self.heap.push(Timer { when, order, entry });
        self.rise(self.heap.len() - 1);
    }

    #[inline]
    pub(super) fn expire(&mut self, now: Nanos, ready: &mut VecDeque<H::Entry>) {
        while self.next().is_some_and(|when| when <= now) {
            ready.extend(self.remove_first());
        }
    }

    /// Counts a cancelled timer; takes such timers out of the heap once they are more than half of it.
    #[inline]
    pub(super) fn cancelled(&mut self) -> Vec<H::Entry> {
        self.cancelled += 1;
        if self.cancelled < MANY || self.cancelled * 2 <= self.heap.len() {
            return Vec::new();
        }
        self.take_cancelled()
    }

    fn take_cancelled(&mut self) -> Vec<H::Entry> {
        let gone = self.heap.extract_if(.., |timer| H::is_cancelled(&timer.entry));
        let gone = gone.map(|timer| timer.entry).collect();
        for parent in (0..self.heap.len().div_ceil(ARITY)).rev() {
            self.sink(parent);
        }
        self.cancelled = 0;
        gone
    }

    /// Moves cancelled timers from the top to the ready ring, so that no one sleeps until their deadline.
    pub(super) fn drop_cancelled(&mut self, ready: &mut VecDeque<H::Entry>) {
        while self
            .heap
            .first()
            .is_some_and(|timer| H::is_cancelled(&timer.entry))
        {
            ready.extend(self.remove_first());
        }
    }

    fn remove_first(&mut self) -> Option<H::Entry> {
        if self.heap.is_empty() {
            return None;
        }
        let first = self.heap.swap_remove(0).entry;
        self.sink(0);
        if H::is_cancelled(&first) {
            self.cancelled = self.cancelled.saturating_sub(1);
        }
        Some(first)
    }

    #[inline]
    fn rise(&mut self, mut child: usize) {
        while child > 0 {
            let parent = (child - 1) / ARITY;
            if self.heap[parent].key() <= self.heap[child].key() {
                return;
            }
            self.heap.swap(parent, child);
            child = parent;
        }
    }

    fn sink(&mut self, mut parent: usize) {
        loop {
            let first = parent * ARITY + 1;
            let children = first..(first + ARITY).min(self.heap.len());
            let Some(least) = children.min_by_key(|&child| self.heap[child].key()) else {
                return;
            };
            if self.heap[parent].key() <= self.heap[least].key() {
                return;
            }
            self.heap.swap(parent, least);
            parent = least;
        }
    }
}
