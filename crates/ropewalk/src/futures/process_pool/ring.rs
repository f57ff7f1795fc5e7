//! A ring of frames in memory that two processes share: one writes, the other reads.
//!
//! ```text
//!            head                      tail
//!             v                         v
//!   | free    | frame | frame | frame   | free      |        positions count bytes and never wrap;
//!   +---------+-------+-------+---------+-----------+        their place is `position % capacity`
//! ```
//!
//! # Access rules
//! - `tail` is written by the producer alone, `head` by the consumer alone.
//! - The bytes from `tail` to `head + capacity` are the producer's, those from `head` to `tail` the consumer's.
//!   A frame changes hands by the release store of `tail` (acquired by the consumer), its space comes back by the
//!   release store of `head` (acquired by the producer).
//! - A frame's [`Claim`] is the exception: both sides change it, by compare-exchange, until the consumer has moved
//!   `head` past it.
//! - Neither side trusts the other's positions and lengths: each is checked before it is used, since the process on
//!   the other side may have run wild.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use super::claim::Claim;

/// The room for frames in one direction. A power of two.
pub(super) const CAPACITY: usize = 256 * 1024;

/// Frames begin at multiples of this, which is the size of a header.
const UNIT: usize = 32;

/// The two positions, each on a cache line of its own.
#[repr(C, align(64))]
pub(super) struct Positions {
    tail: AtomicU64,
    _line: [u64; 7],
    head: AtomicU64,
}

#[repr(C, align(32))]
pub(super) struct Header {
    /// Whose a task frame is.
    pub(super) claim: Claim,
    pub(super) kind: u32,
    len: u32,
    pub(super) flags: u32,
    pub(super) tag: u64,
    /// Of a task: when it was begun, by the monotonic clock. Of a result: how long the task took.
    pub(super) nanos: AtomicU64,
}

const _: () = assert!(size_of::<Header>() == UNIT && CAPACITY.is_power_of_two());

/// The kind of a frame that fills the end of the ring, where the next one did not fit.
const PAD: u32 = 0;

/// The other process wrote what cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Corrupt;

/// What the writer says of a frame.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Label {
    pub(super) kind: u32,
    pub(super) flags: u32,
    pub(super) tag: u64,
    pub(super) nanos: u64,
}

/// One direction's memory.
#[derive(Clone, Copy)]
struct Memory {
    positions: NonNull<Positions>,
    frames: NonNull<u8>,
}

impl Memory {
    fn positions(&self) -> &Positions {
        // SAFETY: valid for as long as the ring's owner keeps the mapping (see `Producer::new`); all its fields are
        // atomics, for which any bytes will do.
        unsafe { self.positions.as_ref() }
    }

    fn at(&self, position: u64) -> NonNull<Header> {
        let place = position as usize & (CAPACITY - 1);
        debug_assert!(place.is_multiple_of(UNIT));
        // SAFETY: `place` is less than the capacity, all of which is mapped; multiples of `UNIT` are aligned.
        unsafe { self.frames.add(place).cast() }
    }

    /// How many bytes lie between `position` and the end of the memory.
    fn to_end(position: u64) -> usize {
        CAPACITY - (position as usize & (CAPACITY - 1))
    }
}

fn span(len: usize) -> usize {
    UNIT + len.next_multiple_of(UNIT)
}

/// The writing end.
pub(super) struct Producer {
    memory: Memory,
    tail: u64,
    /// The last head seen.
    head: u64,
}

// SAFETY: memory shared between processes is not tied to a thread; `&mut self` guards the producer's side.
unsafe impl Send for Producer {}

impl Producer {
    /// # Safety
    /// `positions` and the `CAPACITY` bytes at `frames`, aligned to 64, stay mapped while the ring is used, began
    /// as zeros, and have no other producer.
    pub(super) unsafe fn new(positions: NonNull<Positions>, frames: NonNull<u8>) -> Self {
        Self {
            memory: Memory { positions, frames },
            tail: 0,
            head: 0,
        }
    }

    /// Writes a frame and returns its position; `None` if there is no room now.
    pub(super) fn push(&mut self, label: Label, payload: &[u8]) -> Result<Option<u64>, Corrupt> {
        let size = span(payload.len());
        let mut position = self.tail;
        let to_end = Memory::to_end(position);
        let padding = if size > to_end { to_end } else { 0 };
        if !self.has_room(padding + size)? {
            return Ok(None);
        }
        if padding > 0 {
            self.write(position, Label::default(), &[]);
            position += padding as u64;
        }
        self.write(position, label, payload);
        self.tail = position + size as u64;
        // Release: the frame's bytes before its position. Acquired by `Consumer::peek`.
        self.memory.positions().tail.store(self.tail, Ordering::Release);
        Ok(Some(position))
    }

    /// Whether a frame with `len` bytes would find room now.
    pub(super) fn fits(&mut self, len: usize) -> Result<bool, Corrupt> {
        let size = span(len);
        let to_end = Memory::to_end(self.tail);
        self.has_room(if size > to_end { to_end + size } else { size })
    }

    fn has_room(&mut self, size: usize) -> Result<bool, Corrupt> {
        let free = |head: u64| (CAPACITY as u64).checked_sub(self.tail.wrapping_sub(head));
        if free(self.head).is_some_and(|free| free >= size as u64) {
            return Ok(true);
        }
        // Acquire: the consumer's last reads of the space before we write to it. Pairs with `Consumer::advance`.
        let head = self.memory.positions().head.load(Ordering::Acquire);
        if head < self.head || head > self.tail {
            return Err(Corrupt);
        }
        self.head = head;
        Ok(free(head).is_some_and(|free| free >= size as u64))
    }

    fn write(&mut self, position: u64, label: Label, payload: &[u8]) {
        let header = self.memory.at(position);
        // SAFETY: the space is ours (`has_room`) and reaches as far as the header and, unless it is padding, the
        // payload (`push` has seen to the end of the ring).
        unsafe {
            header.write(Header {
                claim: Claim::open(),
                kind: label.kind,
                len: payload.len() as u32,
                flags: label.flags,
                tag: label.tag,
                nanos: AtomicU64::new(label.nanos),
            });
            header
                .add(1)
                .cast::<u8>()
                .copy_from_nonoverlapping(NonNull::from(payload).cast(), payload.len());
        }
    }

    /// The header of a frame that the consumer has not moved past.
    ///
    /// Only its claim and its time may be looked at: the rest is the consumer's.
    pub(super) fn sent(&self, position: u64) -> (&Claim, &AtomicU64) {
        let header = self.memory.at(position).as_ptr();
        // SAFETY: in the ring's memory; both are atomics, shared by design. The frame is the caller's, not yet
        // overwritten: only `push` of this producer would do that.
        unsafe { (&(*header).claim, &(*header).nanos) }
    }
}

/// The reading end.
pub(super) struct Consumer {
    memory: Memory,
    head: u64,
    /// The last tail seen.
    tail: u64,
}

// SAFETY: as for `Producer`.
unsafe impl Send for Consumer {}

/// A frame in the ring, there until the consumer moves on.
pub(super) struct Frame<'a> {
    pub(super) position: u64,
    pub(super) label: Label,
    pub(super) claim: &'a Claim,
    pub(super) nanos: &'a AtomicU64,
    pub(super) payload: &'a [u8],
}

impl Consumer {
    /// # Safety
    /// As for [`Producer::new`], with no other consumer.
    pub(super) unsafe fn new(positions: NonNull<Positions>, frames: NonNull<u8>) -> Self {
        Self {
            memory: Memory { positions, frames },
            head: 0,
            tail: 0,
        }
    }

    /// Whether nothing has been written since the last look.
    pub(super) fn is_empty(&self) -> bool {
        // Relaxed: `peek` acquires before it reads.
        self.head == self.tail && self.memory.positions().tail.load(Ordering::Relaxed) == self.head
    }

    /// The oldest frame.
    pub(super) fn peek(&mut self) -> Result<Option<Frame<'_>>, Corrupt> {
        loop {
            if self.head == self.tail {
                // Acquire: pairs with the release in `Producer::push`; the frame's bytes are there.
                let tail = self.memory.positions().tail.load(Ordering::Acquire);
                if tail == self.head {
                    return Ok(None);
                }
                let filled = tail.wrapping_sub(self.head);
                if filled > CAPACITY as u64 || !filled.is_multiple_of(UNIT as u64) {
                    return Err(Corrupt);
                }
                self.tail = tail;
            }
            let header = self.memory.at(self.head).as_ptr();
            let left = ((self.tail - self.head) as usize).min(Memory::to_end(self.head));
            // SAFETY: between head and tail, so ours to read; plain fields are read once, into our own memory.
            let (kind, len, flags, tag) = unsafe {
                (
                    (*header).kind,
                    (*header).len as usize,
                    (*header).flags,
                    (*header).tag,
                )
            };
            if kind == PAD {
                self.head += left as u64;
                continue;
            }
            if span(len) > left {
                return Err(Corrupt);
            }
            // SAFETY: the frame lies between head and tail, within the memory, and stays until `advance`.
            return Ok(Some(unsafe {
                Frame {
                    position: self.head,
                    label: Label {
                        kind,
                        flags,
                        tag,
                        nanos: (*header).nanos.load(Ordering::Relaxed),
                    },
                    claim: &(*header).claim,
                    nanos: &(*header).nanos,
                    payload: std::slice::from_raw_parts(header.add(1).cast(), len),
                }
            }));
        }
    }

    /// Moves past the frame at `position` that [`peek`](Self::peek) returned with a payload of `len` bytes.
    pub(super) fn advance(&mut self, position: u64, len: usize) {
        self.head = position + span(len) as u64;
        // Release: our reads of the frame before the producer's writes over it. Acquired by `Producer::has_room`.
        self.memory.positions().head.store(self.head, Ordering::Release);
    }
}

#[cfg(all(test, not(loom)))]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::segment::{Mapping, Segment, Sharing};
    use super::*;

    fn ring() -> (Mapping, Producer, Consumer) {
        let memory = Segment::new(4096 + CAPACITY)
            .unwrap()
            .map(Sharing::Shared)
            .unwrap();
        let positions = NonNull::new(memory.as_ptr()).unwrap();
        // SAFETY: the test keeps the mapping, which is page aligned and zero.
        unsafe {
            let frames = positions.add(4096);
            let producer = Producer::new(positions.cast(), frames);
            let consumer = Consumer::new(positions.cast(), frames);
            (memory, producer, consumer)
        }
    }

    fn label(tag: u64) -> Label {
        Label {
            kind: 1,
            tag,
            ..Label::default()
        }
    }

    fn take(consumer: &mut Consumer) -> Option<(u64, Vec<u8>)> {
        let frame = consumer.peek().unwrap()?;
        let (position, tag, payload) = (frame.position, frame.label.tag, frame.payload.to_vec());
        consumer.advance(position, payload.len());
        Some((tag, payload))
    }

    #[test]
    fn frames_come_out_in_order_round_after_round() {
        let (_memory, mut producer, mut consumer) = ring();
        let mut next = 0;
        for tag in 0..20_000u64 {
            let payload = vec![tag as u8; (tag as usize * 37) % 3000];
            while producer.push(label(tag), &payload).unwrap().is_none() {
                let (tag, payload) = take(&mut consumer).expect("a full ring holds frames");
                assert_eq!((tag, payload.len()), (next, (next as usize * 37) % 3000));
                assert!(payload.iter().all(|byte| *byte == tag as u8));
                next += 1;
            }
        }
        while take(&mut consumer).is_some() {
            next += 1;
        }
        assert_eq!(next, 20_000);
    }

    #[test]
    fn a_full_ring_takes_no_more_until_a_frame_is_read() {
        let (_memory, mut producer, mut consumer) = ring();
        let payload = vec![0; 64 * 1024 - UNIT];
        for tag in 0..4 {
            assert!(producer.push(label(tag), &payload).unwrap().is_some());
        }
        assert_eq!(producer.push(label(4), &[]), Ok(None));
        take(&mut consumer);
        assert!(producer.push(label(4), &[]).unwrap().is_some());
    }

    #[test]
    fn positions_that_cannot_be_are_found_out() {
        let (memory, mut producer, mut consumer) = ring();
        producer.push(label(0), b"x").unwrap();
        // SAFETY: the mapping begins with the positions.
        let positions = unsafe { &*memory.as_ptr().cast::<Positions>() };
        positions.tail.store(u64::MAX, Ordering::Relaxed);
        assert_eq!(consumer.peek().err(), Some(Corrupt));
        positions.head.store(1 << 40, Ordering::Relaxed);
        assert_eq!(producer.push(label(1), &vec![0; CAPACITY - UNIT]), Err(Corrupt));
    }

    #[test]
    fn a_length_beyond_the_tail_is_found_out() {
        let (memory, mut producer, mut consumer) = ring();
        producer.push(label(0), b"x").unwrap();
        // SAFETY: the first frame's header.
        unsafe { (*memory.as_ptr().add(4096).cast::<Header>()).len = 1 << 20 };
        assert_eq!(consumer.peek().err(), Some(Corrupt));
    }
}
