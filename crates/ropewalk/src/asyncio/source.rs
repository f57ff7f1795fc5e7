//! Descriptors that tasks and callbacks wait for.
//!
//! A descriptor of a task is registered once, for both directions, and told at each change (edge-triggered): an operation is
//! tried first, and a wait begins when it would block. A descriptor of a callback is told as long as it is ready.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};

use super::current;
use super::engine::{Interest, Readiness, Trigger};
use super::event_loop::{Inner, expect_loop};
use super::handle::{Call, Scheduled};

/// Who waits for a descriptor.
#[derive(Clone)]
pub(super) enum Source {
    Tasks(Rc<Waits>),
    Callbacks(Callbacks),
}

/// What `add_reader` and `add_writer` were given.
#[derive(Clone, Default)]
pub(super) struct Callbacks {
    pub(super) reader: Option<Repeated>,
    pub(super) writer: Option<Repeated>,
}

pub(super) type Repeated = Rc<RefCell<dyn FnMut()>>;

impl Callbacks {
    pub(super) fn interest(&self) -> Interest {
        Interest {
            readable: self.reader.is_some(),
            writable: self.writer.is_some(),
        }
    }
}

/// The two directions of a descriptor.
#[derive(Default)]
pub(super) struct Waits {
    read: Direction,
    write: Direction,
}

#[derive(Default)]
struct Direction {
    /// The last try would have blocked, and nothing has been told since.
    blocked: Cell<bool>,
    /// How many tries have succeeded since one would have blocked.
    streak: Cell<u32>,
    /// Those who wait, with their numbers, in the order of their coming.
    wakers: RefCell<Vec<(u64, Waker)>>,
    next: Cell<u64>,
}

/// After so many tries that succeeded a task lets others run: a peer that is faster than it would keep it running for ever.
const STREAK: u32 = 32;

impl Direction {
    fn wake(&self) {
        self.blocked.set(false);
        let mut told = self.wakers.take();
        for (_, waker) in told.drain(..) {
            waker.wake();
        }
        // Its memory is for the next who wait.
        let mut wakers = self.wakers.borrow_mut();
        if wakers.capacity() == 0 {
            *wakers = told;
        }
    }

    fn enter(&self, cx: &Context<'_>) -> u64 {
        let number = self.next.replace(self.next.get() + 1);
        self.wakers.borrow_mut().push((number, cx.waker().clone()));
        number
    }

    /// Has who polls woken once, however often he polls: he cannot say when he stops waiting.
    fn enter_once(&self, cx: &Context<'_>) {
        let wakers = self.wakers.borrow();
        let known = wakers.iter().any(|(_, waker)| waker.will_wake(cx.waker()));
        drop(wakers);
        if !known {
            self.enter(cx);
        }
    }
}

/// The place of a wait among those who wait, given up when dropped: or tasks that were cancelled would pile up at a descriptor on
/// which nothing happens.
struct Place<'a> {
    direction: &'a Direction,
    number: Option<u64>,
}

impl Place<'_> {
    /// Takes a place, or keeps the one that is there still.
    fn enter(&mut self, cx: &Context<'_>) {
        let Some(index) = self.index() else {
            self.number = Some(self.direction.enter(cx));
            return;
        };
        let waker = cx.waker().clone();
        let old = std::mem::replace(&mut self.direction.wakers.borrow_mut()[index].1, waker);
        drop(old); // outside the borrow
    }

    /// Where it is; none once those who wait were woken.
    fn index(&self) -> Option<usize> {
        let wakers = self.direction.wakers.borrow();
        wakers
            .binary_search_by_key(&self.number?, |(number, _)| *number)
            .ok()
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let old = self
            .index()
            .map(|index| self.direction.wakers.borrow_mut().remove(index));
        drop(old); // outside the borrow
    }
}

impl Source {
    /// Tells who waits that the descriptor is ready. The engine is not borrowed here.
    pub(super) fn tell(self, inner: &Inner, readiness: Readiness) {
        match self {
            Source::Tasks(waits) => {
                if readiness.readable {
                    waits.read.wake();
                }
                if readiness.writable {
                    waits.write.wake();
                }
            }
            Source::Callbacks(callbacks) => {
                let reader = callbacks.reader.filter(|_| readiness.readable);
                let writer = callbacks.writer.filter(|_| readiness.writable);
                for callback in [reader, writer].into_iter().flatten() {
                    let call = Call::Function(Box::new(move || (callback.borrow_mut())()));
                    let _: Rc<Scheduled> = inner.call_soon(call);
                }
            }
        }
    }
}

/// A direction of a descriptor.
#[derive(Clone, Copy)]
pub(super) enum Way {
    Read,
    Write,
}

/// A descriptor, not blocking, that tasks of one loop wait for.
pub(super) struct Io<T: AsFd> {
    waits: Rc<Waits>,
    /// Weak, since tasks of the loop own descriptors.
    inner: Weak<Inner>,
    loop_id: u64,
    /// Taken by `drop` alone.
    inside: Option<T>,
}

impl<T: AsFd> Io<T> {
    /// Registers a descriptor that does not block with the running loop.
    ///
    /// # Errors
    /// The system's; outside a loop.
    pub(super) fn new(inside: T) -> io::Result<Self> {
        let waits = Rc::<Waits>::default();
        let both = Interest {
            readable: true,
            writable: true,
        };
        let event_loop = super::get_running_loop().map_err(io::Error::from)?;
        expect_loop(|inner| {
            let source = Source::Tasks(waits.clone());
            inner.register(inside.as_fd(), both, Trigger::Edge, source)
        })?;
        Ok(Self {
            waits,
            inner: Rc::downgrade(&event_loop.0),
            loop_id: event_loop.0.id,
            inside: Some(inside),
        })
    }

    pub(super) fn get(&self) -> &T {
        self.inside.as_ref().expect("taken by drop alone")
    }

    fn direction(&self, way: Way) -> &Direction {
        match way {
            Way::Read => &self.waits.read,
            Way::Write => &self.waits.write,
        }
    }

    /// Tries an operation; none if it would block.
    fn attempt<R>(
        &self,
        direction: &Direction,
        cx: &Context<'_>,
        mut operation: impl FnMut(&T) -> io::Result<R>,
    ) -> Option<Poll<io::Result<R>>> {
        if direction.streak.get() >= STREAK {
            direction.streak.set(0);
            cx.waker().wake_by_ref();
            return Some(Poll::Pending);
        }
        while !direction.blocked.get() {
            match operation(self.get()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => direction.blocked.set(true),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                outcome => {
                    direction.streak.set(direction.streak.get() + 1);
                    return Some(Poll::Ready(outcome));
                }
            }
        }
        direction.streak.set(0);
        if current::loop_id() != self.loop_id {
            let why = "the descriptor belongs to another event loop";
            return Some(Poll::Ready(Err(io::Error::other(why))));
        }
        None
    }

    /// Tries an operation until it does not block.
    pub(super) fn poll<R>(
        &self,
        way: Way,
        cx: &Context<'_>,
        operation: impl FnMut(&T) -> io::Result<R>,
    ) -> Poll<io::Result<R>> {
        let direction = self.direction(way);
        self.attempt(direction, cx, operation).unwrap_or_else(|| {
            direction.enter_once(cx);
            Poll::Pending
        })
    }

    /// The same, as an await point of ours.
    pub(super) async fn wait<R>(
        &self,
        way: Way,
        mut operation: impl FnMut(&T) -> io::Result<R>,
    ) -> io::Result<R> {
        let direction = self.direction(way);
        let mut place = Place {
            direction,
            number: None,
        };
        let ready = std::future::poll_fn(|cx| {
            self.attempt(direction, cx, &mut operation).unwrap_or_else(|| {
                place.enter(cx);
                Poll::Pending
            })
        });
        super::cancellable(ready).await?
    }
}

impl<T: AsFd> Drop for Io<T> {
    fn drop(&mut self) {
        // Out of the loop before it is closed: its number may be another descriptor's right after.
        if let (Some(inside), Some(inner)) = (&self.inside, self.inner.upgrade()) {
            drop(inner.deregister(inside.as_fd().as_raw_fd()));
        }
        self.inside = None;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::asyncio::{self, create_task, sleep};
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    #[test]
    fn who_waits_no_more_leaves_nothing_behind() {
        asyncio::run(async {
            let (mut one, other) = UnixStream::pair()?;
            other.set_nonblocking(true)?;
            let other = Rc::new(Io::new(other)?);
            let waits = || {
                let other = other.clone();
                let read = |mut other: &UnixStream| other.read(&mut [0; 1]);
                create_task(async move { Ok(other.wait(Way::Read, read).await?) })
            };
            let mut tasks: Vec<_> = (0..10).map(|_| waits()).collect();
            sleep(Duration::ZERO).await?;
            assert_eq!(other.waits.read.wakers.borrow().len(), 10);
            tasks.drain(1..5).for_each(|task| assert!(task.cancel()));
            tasks.drain(2..).for_each(|task| task.abort());
            for _ in 0..3 {
                sleep(Duration::ZERO).await?;
            }
            assert_eq!(other.waits.read.wakers.borrow().len(), 2);
            one.write_all(b"BR")?;
            for task in tasks {
                assert_eq!(task.await?, 1);
            }
            assert_eq!(other.waits.read.wakers.borrow().len(), 0);
            Ok(())
        })
        .unwrap();
    }
}
