//! The worker's end of a link: what a worker process runs.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::{Duration, Instant};

use rustix::net::{RecvFlags, SendFlags};

use super::message::Message;
use super::ring::{Consumer, Corrupt, Label, Producer};
use super::segment::{Segment, Sharing, is_any_kept, release_kept};
use super::wire::{self, LinkMemory, PRIVATE, PoolMemory, SEGMENT, STATUS_SHIFT, to_pool, to_worker};
use crate::park::{Wake, spin};

/// A worker process's connection to its pool.
///
/// The worker takes requests one at a time with [`poll`](Self::poll) and [`wait`](Self::wait), and answers each
/// [`Request::Task`] with [`reply`](Self::reply) before it takes the next.
///
/// A thread of the worker watches the pool's process and ends the worker the moment that process is no more.
pub struct WorkerLink {
    tasks: Consumer,
    results: Producer,
    memory: LinkMemory,
    pool: PoolMemory,
    socket: OwnedFd,
    eventfd: OwnedFd,
    /// The task that runs: its position, the length of its frame, when it began.
    running: Option<(u64, usize, u64)>,
    settings: Settings,
    done: u64,
}

/// How long memory for large messages is kept unused.
pub(super) const KEEP: Duration = Duration::from_secs(2);

/// What a worker asks of itself.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Settings {
    /// Exit after so many tasks.
    pub(super) max_tasks: Option<u64>,
    /// Exit after a task that leaves more resident memory than this, in bytes.
    pub(super) max_memory: Option<u64>,
}

impl Settings {
    pub(super) fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.max_tasks.unwrap_or(u64::MAX).to_le_bytes());
        bytes[8..].copy_from_slice(&self.max_memory.unwrap_or(u64::MAX).to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: [u8; 16]) -> Self {
        let number = |at: usize| {
            let number = bytes[at..]
                .first_chunk()
                .map_or(u64::MAX, |bytes| u64::from_le_bytes(*bytes));
            (number != u64::MAX).then_some(number)
        };
        Self {
            max_tasks: number(0),
            max_memory: number(8),
        }
    }
}

/// What the pool asks of a worker.
#[derive(Debug)]
pub enum Request {
    /// Get ready, and say [`ready`](WorkerLink::ready) or [`not_ready`](WorkerLink::not_ready).
    Setup(Message),
    /// Keep this: tasks will name it by its number.
    Define(u64, Message),
    /// Do this.
    Task {
        /// The number of the definition that it needs, or zero.
        definition: u64,
        /// The call.
        message: Message,
    },
}

impl WorkerLink {
    /// Takes the link that the pool passed as standard input, and puts `/dev/null` in its place.
    ///
    /// # Errors
    /// Standard input is not such a link, or the pool is gone.
    pub fn from_stdin() -> io::Result<Self> {
        let socket = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
        let null = rustix::fs::open(
            "/dev/null",
            rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        )?;
        rustix::stdio::dup2_stdin(&null)?;
        let mut settings = [0; 16];
        let (len, fds) = wire::receive(&socket, &mut settings, RecvFlags::empty())?;
        let (16, Ok([link, pool, eventfd, parent])) = (len, <[OwnedFd; 4]>::try_from(fds)) else {
            return Err(unusable());
        };
        crate::signals::unblock_all();
        watch(parent)?;
        let map = |fd| Segment::adopt(fd)?.map(Sharing::Shared);
        let memory = LinkMemory::new(map(link)?).ok_or_else(unusable)?;
        let pool = PoolMemory::new(map(pool)?).ok_or_else(unusable)?;
        // SAFETY: the first and only call for this memory in the worker, which the link keeps.
        let (tasks, results) = unsafe { memory.worker_ends() };
        Ok(Self {
            tasks,
            results,
            memory,
            pool,
            socket,
            eventfd,
            running: None,
            settings: Settings::from_bytes(settings),
            done: 0,
        })
    }

    /// The next request, if there is one. `Ready(None)`: it is time to exit.
    ///
    /// # Errors
    /// The pool broke the link.
    pub fn poll(&mut self) -> io::Result<Poll<Option<Request>>> {
        debug_assert!(self.running.is_none(), "answer a task before taking the next");
        if self.is_worn() {
            return Ok(Poll::Ready(None));
        }
        // Looked at first: what was sent before the pool said stop is still done.
        let stop = self.stopped();
        while let Some(frame) = self.tasks.peek().map_err(corrupt)? {
            let (position, label, len) = (frame.position, frame.label, frame.payload.len());
            let task = label.kind == to_worker::TASK;
            let mut began = 0;
            if task {
                began = wire::now();
                frame.nanos.store(began, Ordering::Relaxed);
            }
            let ours = !task || frame.claim.begin();
            let segment = if label.flags & SEGMENT != 0 {
                Some(wire::receive_segment(&self.socket, RecvFlags::empty())?)
            } else {
                None
            };
            if !ours {
                self.tasks.advance(position, len);
                continue;
            }
            let sharing = if label.flags & PRIVATE != 0 {
                Sharing::Private
            } else {
                Sharing::Shared
            };
            let segment = segment.as_ref().map(|segment| (segment, sharing));
            let message = Message::received(frame.payload, segment)?.ok_or_else(unusable)?;
            let request = match label.kind {
                to_worker::TASK => {
                    self.running = Some((position, len, began));
                    return Ok(Poll::Ready(Some(Request::Task {
                        definition: label.tag,
                        message,
                    })));
                }
                to_worker::DEFINE => Request::Define(label.tag, message),
                to_worker::SETUP => Request::Setup(message),
                _ => return Err(unusable()),
            };
            self.tasks.advance(position, len);
            return Ok(Poll::Ready(Some(request)));
        }
        Ok(if stop { Poll::Ready(None) } else { Poll::Pending })
    }

    /// Waits until [`poll`](Self::poll) has something, or a signal handler has run.
    pub fn wait(&mut self) {
        let ready = || !self.tasks.is_empty() || self.stopped();
        if spin(|| ready().then_some(())).is_some() {
            return;
        }
        let bell = &self.memory.control().bell;
        bell.expect();
        if ready() {
            bell.never_mind();
        } else {
            // Memory that is kept for the next large result goes back when none comes.
            let deadline = is_any_kept().then(|| Instant::now() + KEEP);
            if bell.sleep(deadline) == Wake::TimedOut {
                release_kept();
            }
        }
    }

    fn stopped(&self) -> bool {
        // Acquire: pairs with the release in `Link::stop`.
        self.memory.control().stop.load(Ordering::Acquire) != 0
    }

    /// Says that the worker is ready for tasks.
    ///
    /// # Errors
    /// The pool broke the link.
    pub fn ready(&mut self) -> io::Result<()> {
        self.say(to_pool::READY, 0, 0, 0, Message::new(&[])?)
    }

    /// Says why the worker cannot work: the pool is broken then, for this `reason`. The worker is to exit.
    ///
    /// # Errors
    /// The pool broke the link.
    pub fn not_ready(&mut self, reason: &str) -> io::Result<()> {
        self.say(to_pool::NOT_READY, 0, 0, 0, Message::new(&[reason.as_bytes()])?)
    }

    /// Answers the task taken last. Waits if the pool has no room for the answer.
    ///
    /// Does not return if the pool has given the task up: it is about to kill this process.
    ///
    /// # Errors
    /// The pool broke the link.
    pub fn reply(&mut self, status: u8, message: Message) -> io::Result<()> {
        let Some((position, len, began)) = self.running.take() else {
            return Err(unusable());
        };
        let frame = self.tasks.peek().map_err(corrupt)?.ok_or_else(unusable)?;
        if !frame.claim.finish() {
            loop {
                std::thread::park();
            }
        }
        let nanos = wire::now().saturating_sub(began);
        let flags = u32::from(status) << STATUS_SHIFT;
        self.say(to_pool::RESULT, flags, position, nanos, message)?;
        self.tasks.advance(position, len);
        self.done += 1;
        Ok(())
    }

    fn say(
        &mut self,
        kind: u32,
        mut flags: u32,
        tag: u64,
        nanos: u64,
        mut message: Message,
    ) -> io::Result<()> {
        let (head, segment) = message.outgoing()?;
        let bell = &self.memory.control().bell;
        while !self.results.fits(head.len()).map_err(corrupt)? {
            bell.expect();
            if self.results.fits(head.len()).map_err(corrupt)? {
                bell.never_mind();
                break;
            }
            bell.sleep(None);
        }
        if let Some(segment) = segment {
            flags |= SEGMENT;
            wire::send(&self.socket, &[0], &[segment.as_fd()], SendFlags::empty())?;
        }
        let label = Label {
            kind,
            flags,
            tag,
            nanos,
        };
        self.results
            .push(label, head)
            .map_err(corrupt)?
            .ok_or_else(unusable)?;
        self.pool.bell().ring(&self.eventfd);
        Ok(())
    }

    /// Whether the worker has done what one worker is to do.
    fn is_worn(&self) -> bool {
        self.done > 0
            && (self.settings.max_tasks.is_some_and(|most| self.done >= most)
                || self.settings.max_memory.is_some_and(|most| resident() > most))
    }
}

fn unusable() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the link to the pool is unusable")
}

fn corrupt(_: Corrupt) -> io::Error {
    unusable()
}

/// The resident memory of this process, in bytes.
fn resident() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|line| line.split(' ').nth(1)?.parse::<u64>().ok());
    pages.unwrap_or(0) * rustix::param::page_size() as u64
}

/// Ends this process when `parent`, a pidfd, says that the pool's process is no more.
///
/// A socket would not do: a child that the pool's process forked holds it open. Nor would the kernel's parent-death
/// signal: it tells of the death of the thread that started the worker.
fn watch(parent: OwnedFd) -> io::Result<()> {
    let watcher = move || {
        use rustix::event::{PollFd, PollFlags, poll};
        loop {
            let mut fds = [PollFd::new(&parent, PollFlags::IN)];
            match poll(&mut fds, None) {
                Ok(_) if !fds[0].revents().is_empty() => break,
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(_) => return,
            }
        }
        // SAFETY: ends the process without running anything of its own, which is the point.
        unsafe { libc::_exit(1) }
    };
    crate::signals::blocked(|| {
        std::thread::Builder::new()
            .name("ropewalk-watch".into())
            .stack_size(64 * 1024)
            .spawn(watcher)
    })?;
    Ok(())
}
