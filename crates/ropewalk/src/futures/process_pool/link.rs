//! The pool's end of the connection to one worker.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::net::{RecvFlags, SendFlags};

use super::job::Job;
use super::message::Message;
use super::ring::{Consumer, Corrupt, Label, Producer};
use super::segment::{Segment, Sharing};
use super::wire::{self, LINK, LinkMemory, PRIVATE, SEGMENT, STATUS_SHIFT, to_pool, to_worker};
use crate::sync::lock;

/// The most large tasks under way at once: each holds a descriptor here and one in the socket or the worker.
const MAX_LARGE: usize = 2;

/// One worker's rings and socket, and what is under way in them. Lives under the pool's lock.
pub(super) struct Link {
    tasks: Producer,
    results: Consumer,
    memory: LinkMemory,
    socket: OwnedFd,
    /// What the worker was sent and has not answered, oldest first. What is taken back leaves it at once.
    under_way: VecDeque<UnderWay>,
    known: HashSet<u64>,
}

pub(super) struct UnderWay {
    position: u64,
    large: bool,
    pub(super) task: Arc<Job>,
}

/// What came of an attempt to send.
pub(super) enum Sent {
    /// It is in the ring.
    Yes,
    /// The ring, the socket or this program's table of descriptors is full: try again when something has moved.
    Full,
    /// The message cannot be sent at all.
    Never(io::Error),
}

/// What a worker said.
pub(super) enum Said {
    Ready,
    NotReady(Message),
    Answer {
        task: Arc<Job>,
        status: u8,
        message: Message,
        /// How long the task took.
        nanos: u64,
    },
}

/// The worker does not keep to the protocol, or memory ran out on the way: it is of no more use.
#[derive(Debug)]
pub(super) struct Broken;

impl From<Corrupt> for Broken {
    fn from(_: Corrupt) -> Self {
        Self
    }
}

impl From<io::Error> for Broken {
    fn from(_: io::Error) -> Self {
        Self
    }
}

impl Link {
    /// A link, the worker's end of its socket, and the memory to send there.
    pub(super) fn new() -> io::Result<(Self, OwnedFd, Segment)> {
        let segment = Segment::new(LINK)?;
        let Some(memory) = LinkMemory::new(segment.map(Sharing::Shared)?) else {
            return Err(io::ErrorKind::OutOfMemory.into());
        };
        let (socket, worker) = rustix::net::socketpair(
            rustix::net::AddressFamily::UNIX,
            rustix::net::SocketType::SEQPACKET,
            rustix::net::SocketFlags::CLOEXEC,
            None,
        )?;
        // SAFETY: the first and only call for this memory, which the link keeps.
        let (tasks, results) = unsafe { memory.pool_ends() };
        let link = Self {
            tasks,
            results,
            memory,
            socket,
            under_way: VecDeque::new(),
            known: HashSet::new(),
        };
        Ok((link, worker, segment))
    }

    /// Sends the worker the descriptors that it begins with.
    pub(super) fn greet(&self, settings: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        wire::send(&self.socket, settings, fds, SendFlags::DONTWAIT)
    }

    /// How many tasks the worker has to answer.
    pub(super) fn load(&self) -> usize {
        self.under_way.len()
    }

    /// Wakes the worker if it sleeps.
    pub(super) fn ring(&self) {
        self.memory.control().bell.ring_word();
    }

    /// Asks the worker to exit when it has done what it was sent.
    pub(super) fn stop(&self) {
        // Release, acquired by the worker's look: what was sent before is done before.
        self.memory.control().stop.store(1, Ordering::Release);
        self.ring();
    }

    /// Sends what the worker needs before its first task.
    pub(super) fn send_setup(&mut self, message: &mut Message) -> Result<Sent, Broken> {
        Ok(match self.push(to_worker::SETUP, PRIVATE, 0, message)? {
            Ok(_) => Sent::Yes,
            Err(not) => not,
        })
    }

    /// Sends a task, and its definition before it if the worker does not have that.
    pub(super) fn send(&mut self, task: &Arc<Job>) -> Result<Sent, Broken> {
        let mut number = 0;
        if let Some(definition) = &task.definition {
            number = definition.number;
            if !self.known.contains(&number) {
                let mut message = lock(&definition.message);
                if let Err(not) = self.push(to_worker::DEFINE, PRIVATE, number, &mut message)? {
                    return Ok(not);
                }
                self.known.insert(number);
            }
        }
        let flags = if task.retries.load(Ordering::Relaxed) > 0 {
            PRIVATE
        } else {
            0
        };
        let mut message = lock(&task.message);
        let Some(message) = message.as_mut() else {
            return Ok(Sent::Never(io::ErrorKind::InvalidInput.into()));
        };
        let large = message.is_large();
        if large && self.under_way.iter().filter(|sent| sent.large).count() >= MAX_LARGE {
            return Ok(Sent::Full);
        }
        Ok(match self.push(to_worker::TASK, flags, number, message)? {
            Ok(position) => {
                self.under_way.push_back(UnderWay {
                    position,
                    large,
                    task: task.clone(),
                });
                Sent::Yes
            }
            Err(not) => not,
        })
    }

    fn push(
        &mut self,
        kind: u32,
        flags: u32,
        tag: u64,
        message: &mut Message,
    ) -> Result<Result<u64, Sent>, Broken> {
        let (head, segment) = match message.outgoing() {
            Ok(outgoing) => outgoing,
            Err(error) if out_of_descriptors(&error) => return Ok(Err(Sent::Full)),
            Err(error) => return Ok(Err(Sent::Never(error))),
        };
        if !self.tasks.fits(head.len())? {
            return Ok(Err(Sent::Full));
        }
        let mut flags = flags;
        if let Some(segment) = segment {
            flags |= SEGMENT;
            match wire::send(&self.socket, &[0], &[segment.as_fd()], SendFlags::DONTWAIT) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Err(Sent::Full)),
                Err(error) if error.raw_os_error() == Some(libc::ETOOMANYREFS) => return Ok(Err(Sent::Full)),
                // The worker is gone; its pidfd tells the rest.
                Err(_) => return Err(Broken),
            }
        }
        let label = Label {
            kind,
            flags,
            tag,
            nanos: 0,
        };
        match self.tasks.push(label, head)? {
            Some(position) => Ok(Ok(position)),
            None => Ok(Err(Sent::Full)),
        }
    }

    /// The next thing the worker said.
    pub(super) fn receive(&mut self) -> Result<Option<Said>, Broken> {
        let Some(frame) = self.results.peek()? else {
            return Ok(None);
        };
        let (position, label, len) = (frame.position, frame.label, frame.payload.len());
        let segment = if label.flags & SEGMENT != 0 {
            // It was sent before the frame: it is there.
            Some(wire::receive_segment(&self.socket, RecvFlags::DONTWAIT)?)
        } else {
            None
        };
        let segment = segment.as_ref().map(|segment| (segment, Sharing::Shared));
        let message = Message::received(frame.payload, segment)?.ok_or(Broken)?;
        self.results.advance(position, len);
        Ok(Some(match label.kind {
            to_pool::READY => Said::Ready,
            to_pool::NOT_READY => Said::NotReady(message),
            to_pool::RESULT => {
                if self
                    .under_way
                    .front()
                    .is_none_or(|sent| sent.position != label.tag)
                {
                    return Err(Broken);
                }
                let UnderWay { task, .. } = self.under_way.pop_front().ok_or(Broken)?;
                Said::Answer {
                    task,
                    status: (label.flags >> STATUS_SHIFT) as u8,
                    message,
                    nanos: label.nanos,
                }
            }
            _ => return Err(Broken),
        }))
    }

    /// Whether the worker has said anything that was not received.
    pub(super) fn has_news(&self) -> bool {
        !self.results.is_empty()
    }

    fn find(&self, task: &Job) -> Option<usize> {
        self.under_way
            .iter()
            .position(|sent| std::ptr::addr_eq(Arc::as_ptr(&sent.task), task))
    }

    /// Takes back a task that has not begun.
    pub(super) fn take_back(&mut self, task: &Job) -> bool {
        let Some(index) = self.find(task) else {
            return false;
        };
        let taken = self.tasks.sent(self.under_way[index].position).0.take_back();
        if taken {
            self.under_way.remove(index);
        }
        taken
    }

    /// Takes back the task that was sent last, if it has not begun.
    pub(super) fn take_back_last(&mut self) -> Option<Arc<Job>> {
        let last = self.under_way.back()?;
        if self.tasks.sent(last.position).0.take_back() {
            self.under_way.pop_back().map(|sent| sent.task)
        } else {
            None
        }
    }

    /// Gives up a task that is running. The caller kills the worker.
    pub(super) fn condemn(&mut self, task: &Job) -> bool {
        let Some(index) = self.find(task) else {
            return false;
        };
        let condemned = self.tasks.sent(self.under_way[index].position).0.condemn();
        if condemned {
            self.under_way.remove(index);
        }
        condemned
    }

    /// Whether a task that was sent has begun, and when.
    pub(super) fn began(&self, task: &Job) -> Option<u64> {
        let (claim, nanos) = self.tasks.sent(self.under_way[self.find(task)?].position);
        claim.has_begun().then(|| nanos.load(Ordering::Relaxed))
    }

    /// When the worker began the task that it is at.
    pub(super) fn first_began(&self) -> Option<u64> {
        let (claim, nanos) = self.tasks.sent(self.under_way.front()?.position);
        claim.has_begun().then(|| nanos.load(Ordering::Relaxed))
    }

    /// The tasks under way, oldest first.
    pub(super) fn under_way(&self) -> impl Iterator<Item = &Arc<Job>> {
        self.under_way.iter().map(|sent| &sent.task)
    }

    /// What a dead worker leaves: each task, and whether it had begun.
    pub(super) fn remains(&mut self) -> Vec<(Arc<Job>, bool)> {
        let tasks = &self.tasks;
        self.under_way
            .drain(..)
            .map(|sent| (sent.task, tasks.sent(sent.position).0.has_begun()))
            .collect()
    }
}

fn out_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}
