//! What the two ends of a link agree on: the layout of the shared memory, the kinds of frames, how descriptors pass.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU32;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};

use super::bell::Bell;
use super::ring::{CAPACITY, Consumer, Positions, Producer};
use super::segment::Mapping;

/// Frames from the pool to a worker.
pub(super) mod to_worker {
    pub(crate) const SETUP: u32 = 1;
    pub(crate) const DEFINE: u32 = 2;
    pub(crate) const TASK: u32 = 3;
}

/// Frames from a worker to the pool.
pub(super) mod to_pool {
    pub(crate) const READY: u32 = 1;
    pub(crate) const NOT_READY: u32 = 2;
    pub(crate) const RESULT: u32 = 3;
}

/// A segment with the bytes of this frame waits in the socket.
pub(super) const SEGMENT: u32 = 1;
/// The segment may be sent again, to another worker: what this one writes to it must stay private.
pub(super) const PRIVATE: u32 = 2;
/// Where the face's own status of a result begins.
pub(super) const STATUS_SHIFT: u32 = 8;

/// The start of a link's memory.
#[repr(C)]
pub(super) struct Control {
    /// The worker sleeps here: for tasks, or for room for a result.
    pub(super) bell: Bell,
    /// Not zero: do what is in the ring and exit.
    pub(super) stop: AtomicU32,
    tasks: Positions,
    results: Positions,
}

const FRAMES: usize = 4096;

/// The size of a link's memory.
pub(super) const LINK: usize = FRAMES + 2 * CAPACITY;

const _: () = assert!(size_of::<Control>() <= FRAMES);

/// The memory of a link, mapped.
pub(super) struct LinkMemory(Mapping);

impl LinkMemory {
    /// `None`: the mapping is too small to be one.
    pub(super) fn new(mapping: Mapping) -> Option<Self> {
        (mapping.len() >= LINK).then_some(Self(mapping))
    }

    fn base(&self) -> NonNull<u8> {
        NonNull::from(&self.0[0])
    }

    pub(super) fn control(&self) -> &Control {
        // SAFETY: the mapping is page aligned and large enough; every field is made of atomics.
        unsafe { self.base().cast::<Control>().as_ref() }
    }

    /// The pool's ends.
    ///
    /// # Safety
    /// Called once for a link, by its pool; `self` outlives what it returns.
    pub(super) unsafe fn pool_ends(&self) -> (Producer, Consumer) {
        let control = NonNull::from(self.control());
        // SAFETY: mapped, zero at first, and the only producer and consumer (the caller). The pointers come from
        // the whole mapping, the fields' from the control block.
        unsafe {
            let (tasks, results) = (
                NonNull::from(&control.as_ref().tasks),
                NonNull::from(&control.as_ref().results),
            );
            let frames = NonNull::new_unchecked(self.0.as_ptr().add(FRAMES));
            (
                Producer::new(tasks, frames),
                Consumer::new(results, frames.add(CAPACITY)),
            )
        }
    }

    /// The worker's ends.
    ///
    /// # Safety
    /// As for [`pool_ends`](Self::pool_ends), by its worker.
    pub(super) unsafe fn worker_ends(&self) -> (Consumer, Producer) {
        let control = self.control();
        // SAFETY: as in `pool_ends`.
        unsafe {
            let frames = NonNull::new_unchecked(self.0.as_ptr().add(FRAMES));
            (
                Consumer::new(NonNull::from(&control.tasks), frames),
                Producer::new(NonNull::from(&control.results), frames.add(CAPACITY)),
            )
        }
    }
}

/// The memory that all workers of a pool share with it: one bell.
pub(super) struct PoolMemory(Mapping);

/// Its size.
pub(super) const POOL: usize = 4096;

impl PoolMemory {
    /// `None`: the mapping is too small to be one.
    pub(super) fn new(mapping: Mapping) -> Option<Self> {
        (mapping.len() >= POOL).then_some(Self(mapping))
    }

    pub(super) fn bell(&self) -> &Bell {
        // SAFETY: page aligned, large enough, an atomic.
        unsafe { NonNull::from(&self.0[0]).cast::<Bell>().as_ref() }
    }
}

/// The most descriptors in one message.
const MAX_FDS: usize = 4;

/// Sends `bytes` with `fds`.
pub(super) fn send(
    socket: impl AsFd,
    bytes: &[u8],
    fds: &[BorrowedFd<'_>],
    flags: SendFlags,
) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let parts = [IoSlice::new(bytes)];
    loop {
        match rustix::net::sendmsg(&socket, &parts, &mut ancillary, flags | SendFlags::NOSIGNAL) {
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Receives one message: how many bytes, and the descriptors.
pub(super) fn receive(
    socket: impl AsFd,
    bytes: &mut [u8],
    flags: RecvFlags,
) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let mut parts = [IoSliceMut::new(bytes)];
        match rustix::net::recvmsg(
            &socket,
            &mut parts,
            &mut ancillary,
            flags | RecvFlags::CMSG_CLOEXEC,
        ) {
            Ok(received) => break received,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    };
    let fds = ancillary
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        })
        .flatten()
        .collect();
    Ok((received.bytes, fds))
}

/// Receives the one descriptor that goes with a frame.
pub(super) fn receive_segment(socket: impl AsFd, flags: RecvFlags) -> io::Result<super::segment::Segment> {
    let (_, mut fds) = receive(socket, &mut [0], flags)?;
    match fds.pop() {
        Some(fd) => super::segment::Segment::adopt(fd),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// The monotonic clock, the same in all processes.
pub(super) fn now() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
