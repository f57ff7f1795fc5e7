//! What travels: a few byte strings, small ones through the ring, large ones in a segment of their own.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::segment::{Mapping, Segment, Sharing};

/// A message of at most this many bytes is copied through the ring; a larger one travels as a memfd.
///
/// Measured: below, two copies cost less than the system calls that make, send and map a segment.
pub(super) const INLINE: usize = 64 * 1024;

/// Where the parts of a large message begin: a cache line, which is what NumPy and Arrow ask for.
const ALIGN: usize = 64;

/// A list of byte strings on its way between two processes.
///
/// Part 0 is by convention what the others belong to: a pickle before its buffers.
#[derive(Debug)]
pub struct Message {
    /// Number of parts, the length of each, and in a small message the bytes themselves.
    head: Box<[u8]>,
    body: Body,
}

#[derive(Debug)]
enum Body {
    Inline,
    Outgoing {
        segment: Segment,
        _ticket: Option<Ticket>,
    },
    /// A large message for which there was no file descriptor to be had. It gets one when it is sent.
    Heap(Box<[u8]>),
    Received(Mapping),
}

/// Leave to hold a descriptor while a message waits to be sent. A quarter of what the process may open is enough:
/// the rest is for those that are under way, for workers, and for the program.
#[derive(Debug)]
struct Ticket;

static TICKETS: AtomicUsize = AtomicUsize::new(0);

impl Ticket {
    fn take() -> Option<Self> {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        let most = limit.current.map_or(usize::MAX, |limit| limit as usize) / 4;
        // Relaxed: a count, which orders nothing.
        let ticket = Ticket;
        (TICKETS.fetch_add(1, Ordering::Relaxed) < most).then_some(ticket)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        TICKETS.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Message {
    /// Copies `parts`.
    ///
    /// # Errors
    /// Memory for a large message could not be had.
    pub fn new(parts: &[&[u8]]) -> io::Result<Self> {
        let total: usize = parts.iter().map(|part| part.len()).sum();
        let table = 4 + 8 * parts.len();
        let inline = table + total <= INLINE;
        let mut head = Vec::with_capacity(if inline { table + total } else { table });
        head.extend_from_slice(&(parts.len() as u32).to_le_bytes());
        for part in parts {
            head.extend_from_slice(&(part.len() as u64).to_le_bytes());
        }
        let body = if inline {
            for part in parts {
                head.extend_from_slice(part);
            }
            Body::Inline
        } else {
            Self::large(parts)?
        };
        Ok(Self {
            head: head.into(),
            body,
        })
    }

    fn large(parts: &[&[u8]]) -> io::Result<Body> {
        let len = parts.iter().map(|part| part.len().next_multiple_of(ALIGN)).sum();
        let segment = match Ticket::take() {
            Some(ticket) => Segment::for_message(len).map(|segment| (segment, Some(ticket))),
            None => Err(io::Error::from_raw_os_error(libc::EMFILE)),
        };
        match segment {
            Ok((segment, ticket)) => {
                let mut offset = 0;
                for part in parts {
                    segment.write_at(part, offset as u64)?;
                    offset += part.len().next_multiple_of(ALIGN);
                }
                Ok(Body::Outgoing {
                    segment,
                    _ticket: ticket,
                })
            }
            // Out of descriptors, or of our share of them, which a hundred thousand pending large tasks bring about.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => {
                let mut bytes = Vec::new();
                bytes
                    .try_reserve_exact(len)
                    .map_err(|_| io::ErrorKind::OutOfMemory)?;
                for part in parts {
                    bytes.extend_from_slice(part);
                    bytes.resize(bytes.len().next_multiple_of(ALIGN), 0);
                }
                Ok(Body::Heap(bytes.into()))
            }
            Err(error) => Err(error),
        }
    }

    /// What goes into the ring, and the segment that goes with it.
    ///
    /// # Errors
    /// There is still no descriptor to be had for a large message.
    pub(super) fn outgoing(&mut self) -> io::Result<(&[u8], Option<&Segment>)> {
        if let Body::Heap(bytes) = &self.body {
            let segment = Segment::for_message(bytes.len())?;
            segment.write_at(bytes, 0)?;
            self.body = Body::Outgoing {
                segment,
                _ticket: None,
            };
        }
        let segment = match &self.body {
            Body::Outgoing { segment, .. } => Some(segment),
            _ => None,
        };
        Ok((&self.head, segment))
    }

    /// Puts together what came out of the ring and the segment that came with it.
    ///
    /// `None`: the two do not fit; the sender is out of its mind.
    pub(super) fn received(head: &[u8], segment: Option<(&Segment, Sharing)>) -> io::Result<Option<Self>> {
        let body = match segment {
            Some((segment, sharing)) => Body::Received(segment.map_message(sharing)?),
            None => Body::Inline,
        };
        let message = Self {
            head: head.into(),
            body,
        };
        Ok(message.fits().then_some(message))
    }

    fn fits(&self) -> bool {
        let Some(count) = self
            .head
            .first_chunk()
            .map(|count| u32::from_le_bytes(*count) as usize)
        else {
            return false;
        };
        let Some(table) = count.checked_mul(8).and_then(|table| table.checked_add(4)) else {
            return false;
        };
        if self.head.len() < table {
            return false;
        }
        let (start, step, available) = match &self.body {
            Body::Received(mapping) => (0, ALIGN, mapping.len()),
            _ => (table, 1, self.head.len()),
        };
        let end = (0..count).try_fold(start, |offset: usize, index| {
            offset.checked_add(self.part_len(index).checked_next_multiple_of(step)?)
        });
        end.is_some_and(|end| end <= available)
    }

    /// The number of parts.
    pub fn count(&self) -> usize {
        self.head
            .first_chunk()
            .map_or(0, |count| u32::from_le_bytes(*count) as usize)
    }

    fn part_len(&self, index: usize) -> usize {
        let at = 4 + 8 * index;
        self.head[at..]
            .first_chunk()
            .map_or(0, |len| u64::from_le_bytes(*len) as usize)
    }

    /// The parts, in order.
    pub fn parts(&self) -> impl Iterator<Item = &[u8]> {
        let (bytes, mut offset, step): (&[u8], usize, usize) = match &self.body {
            Body::Received(mapping) => (mapping, 0, ALIGN),
            Body::Heap(bytes) => (bytes, 0, ALIGN),
            // What is on its way to another process is not read here.
            Body::Outgoing { .. } => (&[], 0, ALIGN),
            Body::Inline => (&self.head, 4 + 8 * self.count(), 1),
        };
        (0..self.count()).map(move |index| {
            let len = self.part_len(index);
            let part = bytes.get(offset..offset + len).unwrap_or_default();
            offset += len.next_multiple_of(step);
            part
        })
    }

    /// Part 0, or nothing.
    pub fn first(&self) -> &[u8] {
        self.parts().next().unwrap_or_default()
    }

    /// How many bytes it carries.
    pub fn len(&self) -> usize {
        (0..self.count()).map(|index| self.part_len(index)).sum()
    }

    /// Whether it takes a descriptor to send it.
    pub(super) fn is_large(&self) -> bool {
        matches!(self.body, Body::Outgoing { .. } | Body::Heap(_))
    }

    /// Whether it carries no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where a part of a message that [`is_mapped`](Self::is_mapped) lies, and how long it is.
    ///
    /// The memory stays until the message is dropped. It may be written, unless somebody looks at a slice of it.
    pub fn mapped_part(&self, index: usize) -> Option<(*mut u8, usize)> {
        let Body::Received(mapping) = &self.body else {
            return None;
        };
        if index >= self.count() {
            return None;
        }
        let offset: usize = (0..index)
            .map(|index| self.part_len(index).next_multiple_of(ALIGN))
            .sum();
        // `fits` has found that all parts lie in the mapping.
        Some((mapping.as_ptr().wrapping_add(offset), self.part_len(index)))
    }

    /// Whether the parts lie in memory that is this message's own, page by page.
    pub fn is_mapped(&self) -> bool {
        matches!(self.body, Body::Received(_))
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        if let Body::Outgoing { segment, .. } = std::mem::replace(&mut self.body, Body::Inline) {
            segment.keep();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn through(mut message: Message) -> Message {
        let (head, segment) = message.outgoing().unwrap();
        Message::received(head, segment.map(|segment| (segment, Sharing::Private)))
            .unwrap()
            .expect("a message that fits")
    }

    #[test]
    fn small_parts_arrive_in_order() {
        let message = through(Message::new(&[b"one", b"", b"three"]).unwrap());
        assert_eq!(message.parts().collect::<Vec<_>>(), [&b"one"[..], b"", b"three"]);
        assert!(!message.is_mapped());
    }

    #[test]
    fn large_parts_arrive_aligned() {
        let big = vec![7; INLINE + 1];
        let message = through(Message::new(&[b"head", &big, b"tail"]).unwrap());
        let parts: Vec<_> = message.parts().collect();
        assert_eq!(parts, [&b"head"[..], &big, b"tail"]);
        assert!(message.is_mapped());
        assert!(
            parts
                .iter()
                .all(|part| (part.as_ptr() as usize).is_multiple_of(ALIGN))
        );
    }

    #[test]
    fn a_table_that_lies_is_refused() {
        let refused = |head: &[u8]| Message::received(head, None).unwrap().is_none();
        assert!(refused(&[]));
        assert!(refused(&u32::MAX.to_le_bytes()));
        let mut head = 2u32.to_le_bytes().to_vec();
        head.extend(u64::MAX.to_le_bytes());
        head.extend(2u64.to_le_bytes());
        assert!(refused(&head));
    }
}
