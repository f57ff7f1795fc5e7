//! Anonymous memory that travels between processes as a file descriptor.
//!
//! # Used again
//! Most of the cost of a large message is that of its pages: the kernel hands them out one by one. So a segment is kept
//! when its message is over, and written again. That is safe once its receiver has let go of it, and only then: the
//! last cache line of a segment is a mark that the receiver sets as it unmaps the memory. A receiver that dies before
//! that never sets it, nor one that forked meanwhile, since its child still sees the memory; their segments are not
//! used again.

use std::io;
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Mutex, Once};

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};

/// A memfd of fixed size: sealed against shrinking, so that a mapping of it never faults.
#[derive(Debug)]
pub(super) struct Segment {
    fd: OwnedFd,
    len: usize,
}

impl Segment {
    /// A segment of `len` zero bytes, which take no memory until they are written.
    pub(super) fn new(len: usize) -> io::Result<Self> {
        let fd = rustix::fs::memfd_create("ropewalk", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        rustix::fs::ftruncate(&fd, len as u64)?;
        rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        Ok(Self { fd, len })
    }

    /// Takes over a descriptor that came from another process.
    ///
    /// Anything but a memfd sealed against shrinking is an error: its owner could make our reads fault.
    pub(super) fn adopt(fd: OwnedFd) -> io::Result<Self> {
        if !rustix::fs::fcntl_get_seals(&fd)?.contains(SealFlags::SHRINK) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the segment is not sealed",
            ));
        }
        let len = usize::try_from(rustix::fs::fstat(&fd)?.st_size)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "the segment has no size"))?;
        Ok(Self { fd, len })
    }

    /// A segment for `len` bytes and a mark, one that is free again if there is one.
    pub(super) fn for_message(len: usize) -> io::Result<Self> {
        let size = len + MARK;
        let found = kept(|kept| {
            let index = kept.iter().position(|segment| {
                (size..=size.saturating_mul(2)).contains(&segment.len) && segment.mark() == FREE
            })?;
            Some(kept.swap_remove(index))
        });
        let segment = match found.flatten() {
            Some(segment) => segment,
            None => Self::new(size)?,
        };
        segment.set_mark(IN_USE)?;
        Ok(segment)
    }

    /// Keeps the segment of a message that is over.
    pub(super) fn keep(self) {
        let dropped = kept(|kept| {
            kept.push(self);
            let mut size: usize = kept.iter().map(|segment| segment.len).sum();
            let mut dropped = Vec::new();
            while size > MAX_KEPT || kept.len() > MAX_KEPT_SEGMENTS {
                size -= kept[0].len;
                dropped.push(kept.remove(0));
            }
            dropped
        });
        // Freeing pages takes time, and the lock is free by now.
        drop(dropped);
    }

    fn mark(&self) -> u32 {
        let mut bytes = [0; 4];
        match rustix::io::pread(&self.fd, &mut bytes, (self.len - MARK) as u64) {
            Ok(4) => u32::from_ne_bytes(bytes),
            _ => IN_USE,
        }
    }

    fn set_mark(&self, mark: u32) -> io::Result<()> {
        self.write_at(&mark.to_ne_bytes(), (self.len - MARK) as u64)
    }

    /// Maps a segment that came with a message; it is marked as free when it is unmapped.
    pub(super) fn map_message(&self, sharing: Sharing) -> io::Result<Mapping> {
        if self.len < MARK {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut mapping = self.map(sharing)?;
        // What is written to a private mapping is seen by nobody: its segment is not used again.
        if sharing == Sharing::Shared {
            mapping.forks = Some(forks());
        }
        Ok(mapping)
    }

    /// Writes `bytes` at `offset`.
    ///
    /// By system call and not through a mapping: the kernel then fills each new page without a page fault.
    pub(super) fn write_at(&self, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
        while !bytes.is_empty() {
            match rustix::io::pwrite(&self.fd, bytes, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    bytes = &bytes[written..];
                    offset += written as u64;
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Maps the whole segment, readable and writable.
    pub(super) fn map(&self, sharing: Sharing) -> io::Result<Mapping> {
        let flags = match sharing {
            Sharing::Shared => MapFlags::SHARED,
            Sharing::Private => MapFlags::PRIVATE,
        };
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing.
        let address = unsafe {
            rustix::mm::mmap(
                ptr::null_mut(),
                self.len,
                ProtFlags::READ | ProtFlags::WRITE,
                flags,
                &self.fd,
                0,
            )?
        };
        let Some(address) = NonNull::new(address.cast()) else {
            return Err(io::ErrorKind::OutOfMemory.into());
        };
        Ok(Mapping {
            address,
            len: self.len,
            forks: None,
        })
    }
}

/// The room for the mark at the end of a message's segment: a cache line.
const MARK: usize = 64;
const FREE: u32 = 0;
const IN_USE: u32 = 1;

/// How much is kept, in bytes and in segments.
const MAX_KEPT: usize = 512 << 20;
const MAX_KEPT_SEGMENTS: usize = 8;

/// What is kept, and by which process: a fork must not write to what its parent keeps.
static KEPT: Mutex<(u32, Vec<Segment>)> = Mutex::new((0, Vec::new()));

/// Does something with what is kept; `None` if another thread, or one that was lost in a fork, is at it.
fn kept<T>(f: impl FnOnce(&mut Vec<Segment>) -> T) -> Option<T> {
    let mut kept = KEPT.try_lock().ok()?;
    let pid = std::process::id();
    if kept.0 != pid {
        *kept = (pid, Vec::new());
    }
    Some(f(&mut kept.1))
}

/// Lets go of what is kept; whether there was anything.
pub(super) fn release_kept() -> bool {
    kept(std::mem::take).is_some_and(|kept| !kept.is_empty())
}

/// Whether anything is kept.
pub(super) fn is_any_kept() -> bool {
    kept(|kept| !kept.is_empty()).unwrap_or(false)
}

/// How often this process has forked.
fn forks() -> usize {
    static FORKS: AtomicUsize = AtomicUsize::new(0);
    static WATCH: Once = Once::new();
    extern "C" fn forking() {
        // Relaxed: counted and read by threads of this process, and a fork's child has a copy.
        FORKS.fetch_add(1, Ordering::Relaxed);
    }
    WATCH.call_once(|| {
        // SAFETY: the handler may run in any thread that forks; it touches one atomic.
        unsafe { libc::pthread_atfork(Some(forking), None, None) };
    });
    FORKS.load(Ordering::Relaxed)
}

/// Asks the kernel for huge pages in memory that is about to be written whole.
pub fn advise_huge_pages(start: *mut u8, len: usize) {
    let page = rustix::param::page_size();
    let skip = start.align_offset(page);
    if len <= skip + page || skip == usize::MAX {
        return;
    }
    let whole = (len - skip) & !(page - 1);
    // SAFETY: advice; it changes nothing that a program can see. Refused for what is not mapped.
    let _ = unsafe {
        rustix::mm::madvise(
            start.wrapping_add(skip).cast(),
            whole,
            rustix::mm::Advice::LinuxHugepage,
        )
    };
}

impl AsFd for Segment {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Who sees what is written to a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sharing {
    /// Every process that maps the segment.
    Shared,
    /// This mapping alone.
    Private,
}

/// Mapped memory, unmapped when dropped.
#[derive(Debug)]
pub(super) struct Mapping {
    address: NonNull<u8>,
    len: usize,
    /// Of a message's segment: to be marked as free if the process has forked so often by then.
    forks: Option<usize>,
}

// SAFETY: a mapping belongs to the process and not to a thread, and `&Mapping` only reads.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// The first byte.
    pub(super) fn as_ptr(&self) -> *mut u8 {
        self.address.as_ptr()
    }
}

impl Deref for Mapping {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the memory is mapped for as long as `self` lives, and sealed against shrinking. Whoever sent it
        // gives it away: it writes to it no more.
        unsafe { std::slice::from_raw_parts(self.address.as_ptr(), self.len) }
    }
}

impl DerefMut for Mapping {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `deref`; `&mut self` rules out other slices of it in this process.
        unsafe { std::slice::from_raw_parts_mut(self.address.as_ptr(), self.len) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.forks.is_some_and(|before| before == forks()) {
            // SAFETY: within the mapping (`map_message`), aligned as all multiples of a cache line from its start are.
            let mark = unsafe { &*self.as_ptr().add(self.len - MARK).cast::<AtomicU32>() };
            // Release: our last reads of the memory before whoever writes it next. He reads the mark by system call.
            mark.store(FREE, Ordering::Release);
        }
        // SAFETY: mapped by `Segment::map` with this address and length, and no slice of it outlives `self`.
        let _ = unsafe { rustix::mm::munmap(self.address.as_ptr().cast(), self.len) };
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_through_a_mapping() {
        let segment = Segment::new(10_000).unwrap();
        segment.write_at(b"rope", 9_000).unwrap();
        let mapping = segment.map(Sharing::Shared).unwrap();
        assert_eq!(&mapping[9_000..9_004], b"rope");
        assert_eq!(mapping.len(), 10_000);
    }

    #[test]
    fn a_private_mapping_keeps_its_writes() {
        let segment = Segment::new(100).unwrap();
        let mut private = segment.map(Sharing::Private).unwrap();
        private[0] = 7;
        assert_eq!(segment.map(Sharing::Shared).unwrap()[0], 0);
    }

    #[test]
    fn a_segment_is_used_again_only_when_its_receiver_has_let_go_of_it() {
        // A size of this test's own.
        let (first, second) = (Segment::for_message(70_016), Segment::for_message(70_016));
        let (first, second) = (first.unwrap(), second.unwrap());
        let inode = |segment: &Segment| rustix::fs::fstat(segment).unwrap().st_ino;
        let (one, other) = (inode(&first), inode(&second));
        let (held, released) = (
            first.map_message(Sharing::Shared),
            second.map_message(Sharing::Shared),
        );
        first.keep();
        second.keep();
        drop(released);
        let again = Segment::for_message(70_016).unwrap();
        assert_eq!(inode(&again), other);
        let fresh = Segment::for_message(70_016).unwrap();
        assert!(![one, other].contains(&inode(&fresh)));
        drop(held);
        assert_eq!(inode(&Segment::for_message(70_016).unwrap()), one);
    }

    #[test]
    fn a_segment_mapped_privately_is_not_used_again() {
        let segment = Segment::for_message(90_048).unwrap();
        let inode = rustix::fs::fstat(&segment).unwrap().st_ino;
        drop(segment.map_message(Sharing::Private));
        segment.keep();
        assert_ne!(
            rustix::fs::fstat(Segment::for_message(90_048).unwrap())
                .unwrap()
                .st_ino,
            inode
        );
    }

    #[test]
    fn a_file_that_can_shrink_is_refused() {
        let fd = rustix::fs::memfd_create("loose", MemfdFlags::CLOEXEC).unwrap();
        assert!(Segment::adopt(fd).is_err());
    }
}
