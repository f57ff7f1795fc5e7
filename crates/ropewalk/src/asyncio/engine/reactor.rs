//! Descriptors: who waits for which, and the poll that tells.
//!
//! A descriptor is registered once; its key carries a generation, so that an event of a registration that is gone
//! (closed and reused within one batch of events) is recognised and dropped.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};

use super::Nanos;

/// The key of the bell, which is no descriptor's.
const BELL: u64 = u64::MAX;
/// Events taken in one poll.
const BATCH: usize = 256;

/// What is waited for on a descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Interest {
    /// Data to read, or the peer's end.
    pub readable: bool,
    /// Room to write.
    pub writable: bool,
}

/// What a descriptor is ready for. Errors and hang-ups make it ready for everything: the call that follows tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Readiness {
    /// A read will not block.
    pub readable: bool,
    /// A write will not block.
    pub writable: bool,
}

/// How often readiness is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// At every poll, as long as it lasts: what `add_reader` promises.
    Level,
    /// Once for each change: for those who read and write until the call would block.
    Edge,
}

/// A descriptor that became ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// The descriptor.
    pub fd: RawFd,
    /// What for.
    pub readiness: Readiness,
}

struct Slot<S> {
    generation: u32,
    /// As the kernel has it.
    interest: Interest,
    trigger: Trigger,
    source: S,
}

/// The descriptors of one engine and what waits for them.
pub struct Reactor<S> {
    epoll: Arc<OwnedFd>,
    /// By descriptor: these are small numbers.
    slots: Vec<Option<Slot<S>>>,
    generation: u32,
    /// Who made it. The child of a fork shares the kernel's set with its parent and must not take from it.
    owner: u32,
}

impl<S> Reactor<S> {
    pub(super) fn new() -> io::Result<Self> {
        let epoll = Arc::new(epoll::create(CreateFlags::CLOEXEC)?);
        Ok(Self {
            epoll,
            slots: Vec::new(),
            generation: 0,
            owner: std::process::id(),
        })
    }

    /// Registers a descriptor that is not registered yet, with what waits for it.
    ///
    /// # Errors
    /// The system's, with the source given back: a descriptor that is closed or cannot be polled (a plain file), or
    /// `AlreadyExists`.
    pub fn register(
        &mut self,
        fd: BorrowedFd<'_>,
        interest: Interest,
        trigger: Trigger,
        source: S,
    ) -> Result<(), (io::Error, S)> {
        let index = index(fd);
        if self.slots.get(index).is_some_and(Option::is_some) {
            return Err((io::ErrorKind::AlreadyExists.into(), source));
        }
        self.generation = self.generation.wrapping_add(1) & (u32::MAX >> 1); // never the bell's key
        let slot = Slot {
            generation: self.generation,
            interest,
            trigger,
            source,
        };
        // The descriptor may still be in the kernel's set though not in ours: closed here, open in a duplicate.
        let added = match epoll::add(&self.epoll, fd, slot.data(fd), slot.flags()) {
            Err(rustix::io::Errno::EXIST) => epoll::modify(&self.epoll, fd, slot.data(fd), slot.flags()),
            result => result,
        };
        if let Err(errno) = added {
            return Err((errno.into(), slot.source));
        }
        if index >= self.slots.len() {
            self.slots.resize_with(index + 1, || None);
        }
        self.slots[index] = Some(slot);
        Ok(())
    }

    /// Changes what is waited for on a registered descriptor. To wait for nothing costs nothing but the call.
    ///
    /// # Errors
    /// The system's, or `NotFound`.
    pub fn modify(&mut self, fd: BorrowedFd<'_>, interest: Interest) -> io::Result<()> {
        let slot = self
            .slots
            .get_mut(index(fd))
            .and_then(Option::as_mut)
            .ok_or(io::ErrorKind::NotFound)?;
        if slot.interest == interest {
            return Ok(());
        }
        slot.interest = interest;
        if self.owner != std::process::id() {
            return Ok(());
        }
        match epoll::modify(&self.epoll, fd, slot.data(fd), slot.flags()) {
            // Closed and opened again behind our back: the kernel has forgotten it.
            Err(rustix::io::Errno::NOENT) => Ok(epoll::add(&self.epoll, fd, slot.data(fd), slot.flags())?),
            result => Ok(result?),
        }
    }

    /// Takes a descriptor out and gives back what waited for it. The descriptor may be closed already. In the child of a
    /// fork the parent goes on waiting for it.
    pub fn deregister(&mut self, fd: RawFd) -> Option<S> {
        let slot = self.slots.get_mut(usize::try_from(fd).ok()?)?.take()?;
        // SAFETY: the borrow ends with the call. If `fd` is closed or another's by now, the kernel answers EBADF or
        // ENOENT, which say that it is out of the set: what was wanted.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        if !self.is_inherited() {
            let _ = epoll::delete(&self.epoll, fd);
        }
        Some(slot.source)
    }

    /// What waits for a registered descriptor.
    pub fn source(&self, fd: RawFd) -> Option<&S> {
        Some(&self.slots.get(usize::try_from(fd).ok()?)?.as_ref()?.source)
    }

    /// The same, to be changed.
    pub fn source_mut(&mut self, fd: RawFd) -> Option<&mut S> {
        Some(&mut self.slots.get_mut(usize::try_from(fd).ok()?)?.as_mut()?.source)
    }

    /// The sources, for garbage collectors and debuggers.
    pub fn iter(&self) -> impl Iterator<Item = &S> {
        self.slots.iter().flatten().map(|slot| &slot.source)
    }

    /// Forgets every descriptor, for an engine that is dropped next. The kernel forgets them with the epoll descriptor;
    /// in the child of a fork, which shares it, they stay for the parent.
    pub fn take(&mut self) -> impl Iterator<Item = S> + use<S> {
        std::mem::take(&mut self.slots)
            .into_iter()
            .flatten()
            .map(|slot| slot.source)
    }

    /// Whether this is the child of a fork, and the parent goes on with the reactor. A system call.
    pub fn is_inherited(&self) -> bool {
        self.owner != std::process::id()
    }

    pub(super) fn share(&self) -> Arc<OwnedFd> {
        self.epoll.clone()
    }

    /// The descriptor of a key, if that registration still stands.
    #[inline]
    pub(super) fn resolve(&self, key: u64) -> Option<RawFd> {
        let (fd, generation) = (key as u32, (key >> 32) as u32);
        let slot = self.slots.get(fd as usize)?.as_ref()?;
        (slot.generation == generation).then_some(fd as RawFd)
    }
}

impl<S> Slot<S> {
    fn data(&self, fd: BorrowedFd<'_>) -> EventData {
        EventData::new_u64(u64::from(self.generation) << 32 | index(fd) as u64)
    }

    fn flags(&self) -> EventFlags {
        let mut flags = EventFlags::empty();
        flags.set(EventFlags::IN | EventFlags::RDHUP, self.interest.readable);
        flags.set(EventFlags::OUT, self.interest.writable);
        // A hang-up is told even to those who wait for nothing: once is enough, or a paused reader would spin.
        flags.set(
            EventFlags::ET,
            self.trigger == Trigger::Edge || self.interest == Interest::default(),
        );
        flags
    }
}

fn index(fd: BorrowedFd<'_>) -> usize {
    use std::os::fd::AsRawFd;
    fd.as_raw_fd() as usize // never negative in a BorrowedFd
}

/// What wakes a sleeping poll from another thread: an eventfd, told on every write and so never read.
pub(super) struct Bell(OwnedFd);

impl Bell {
    pub(super) fn new<S>(reactor: &Reactor<S>) -> io::Result<Self> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        epoll::add(
            &reactor.epoll,
            &bell,
            EventData::new_u64(BELL),
            EventFlags::IN | EventFlags::ET,
        )?;
        Ok(Self(bell))
    }

    pub(super) fn ring(&self) {
        // It can fail only when the counter is full, after 2^64 rings: then reading it makes room.
        if rustix::io::write(self.0.as_fd(), &1u64.to_ne_bytes()).is_err() {
            let _ = rustix::io::read(self.0.as_fd(), &mut [0u8; 8]);
            let _ = rustix::io::write(self.0.as_fd(), &1u64.to_ne_bytes());
        }
    }
}

/// The events of one poll, and how far they have been handed out.
#[derive(Default)]
pub(super) struct Events {
    list: Vec<epoll::Event>,
    next: usize,
}

// SAFETY: the data of an event could be a pointer, but every one of ours is a key, an integer.
unsafe impl Send for Events {}

impl Events {
    pub(super) fn new() -> Self {
        Self::default()
    }

    pub(super) fn next(&mut self) -> Option<(u64, Readiness)> {
        loop {
            let event = *self.list.get(self.next)?;
            self.next += 1;
            let (key, flags) = (event.data.u64(), event.flags);
            if key != BELL {
                let broken = flags.intersects(EventFlags::ERR | EventFlags::HUP);
                let readiness = Readiness {
                    readable: broken || flags.intersects(EventFlags::IN | EventFlags::RDHUP),
                    writable: broken || flags.contains(EventFlags::OUT),
                };
                return Some((key, readiness));
            }
        }
    }

    /// Polls until an event, the timeout (rounded up to milliseconds) or a signal.
    pub(super) fn poll(&mut self, epoll: &OwnedFd, timeout: Option<Nanos>) -> io::Result<()> {
        self.list.clear();
        self.next = 0;
        self.list.reserve(BATCH);
        let timeout = timeout.map(|nanos| {
            // In milliseconds, since epoll_wait takes these and epoll_pwait2 is not to be had everywhere; rounded up,
            // since a loop that wakes too early wakes twice. A day at most: the number is the kernel's int.
            let millis = nanos.div_ceil(1_000_000).min(86_400_000);
            Timespec {
                tv_sec: (millis / 1000) as i64,
                tv_nsec: (millis % 1000 * 1_000_000) as i64,
            }
        });
        match epoll::wait(epoll, spare_capacity(&mut self.list), timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}
