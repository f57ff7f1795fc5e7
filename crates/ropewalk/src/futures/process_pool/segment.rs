//! Anonymous memory that travels between processes as a file descriptor.

use std::io;
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};

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
            Sharing::Filled => MapFlags::SHARED | MapFlags::POPULATE,
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
        })
    }
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
    /// As `Shared`, with all pages mapped at once: for a segment that is read whole.
    Filled,
    /// This mapping alone.
    Private,
}

/// Mapped memory, unmapped when dropped.
#[derive(Debug)]
pub(super) struct Mapping {
    address: NonNull<u8>,
    len: usize,
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
        let mapping = segment.map(Sharing::Filled).unwrap();
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
    fn a_file_that_can_shrink_is_refused() {
        let fd = rustix::fs::memfd_create("loose", MemfdFlags::CLOEXEC).unwrap();
        assert!(Segment::adopt(fd).is_err());
    }
}
