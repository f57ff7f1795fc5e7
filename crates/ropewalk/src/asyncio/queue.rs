//! [`Queue`], [`LifoQueue`], [`PriorityQueue`].

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::fmt;

use super::cancel::cancellable;
use super::error::{Cancelled, Error, Result};
use super::semaphore::Permits;
use super::waiters::Waiters;

/// Hands items from task to task, the oldest first (Python: `asyncio.Queue`).
pub type Queue<T> = AnyQueue<VecDeque<T>>;

/// A [`Queue`] that gives the newest item first (Python: `asyncio.LifoQueue`).
///
/// ```
/// let stack = ropewalk::asyncio::LifoQueue::new(0);
/// stack.put_nowait("BR")?;
/// stack.put_nowait("CN")?;
/// assert_eq!(stack.get_nowait(), Ok("CN"));
/// # Ok::<(), ropewalk::asyncio::PutNowaitError<&str>>(())
/// ```
pub type LifoQueue<T> = AnyQueue<Vec<T>>;

/// A [`Queue`] that gives the least item first (Python: `asyncio.PriorityQueue`).
///
/// ```
/// let due = ropewalk::asyncio::PriorityQueue::new(0);
/// due.put_nowait((2, "CN"))?;
/// due.put_nowait((1, "BR"))?;
/// assert_eq!(due.get_nowait(), Ok((1, "BR")));
/// # Ok::<(), ropewalk::asyncio::PutNowaitError<(u32, &str)>>(())
/// ```
pub type PriorityQueue<T> = AnyQueue<BinaryHeap<Reverse<T>>>;

/// How a queue keeps its items.
pub trait Order: Default {
    /// What it keeps.
    type Item;

    /// Takes an item in.
    fn put(&mut self, item: Self::Item);

    /// Gives the item whose turn it is.
    fn get(&mut self) -> Option<Self::Item>;

    /// How many items there are.
    fn count(&self) -> usize;
}

impl<T> Order for VecDeque<T> {
    type Item = T;

    fn put(&mut self, item: T) {
        self.push_back(item);
    }

    fn get(&mut self) -> Option<T> {
        self.pop_front()
    }

    fn count(&self) -> usize {
        self.len()
    }
}

impl<T> Order for Vec<T> {
    type Item = T;

    fn put(&mut self, item: T) {
        self.push(item);
    }

    fn get(&mut self) -> Option<T> {
        self.pop()
    }

    fn count(&self) -> usize {
        self.len()
    }
}

impl<T: Ord> Order for BinaryHeap<Reverse<T>> {
    type Item = T;

    fn put(&mut self, item: T) {
        self.push(Reverse(item));
    }

    fn get(&mut self) -> Option<T> {
        self.pop().map(|Reverse(item)| item)
    }

    fn count(&self) -> usize {
        self.len()
    }
}

/// The queue was shut down (Python 3.13: `asyncio.QueueShutDown`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueShutDown;

impl fmt::Display for QueueShutDown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the queue was shut down")
    }
}

impl std::error::Error for QueueShutDown {}

/// Why [`put_nowait`](AnyQueue::put_nowait) did not take an item, and the item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutNowaitError<T> {
    /// There is no room (Python: `asyncio.QueueFull`).
    Full(T),
    /// The queue was shut down.
    ShutDown(T),
}

/// Why [`get_nowait`](AnyQueue::get_nowait) gave no item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GetNowaitError {
    /// There is none, or none that no earlier task waits for (Python: `asyncio.QueueEmpty`).
    Empty,
    /// There is none, and there will be none.
    ShutDown,
}

impl<T> fmt::Display for PutNowaitError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(_) => f.write_str("the queue is full"),
            Self::ShutDown(_) => QueueShutDown.fmt(f),
        }
    }
}

impl<T: fmt::Debug> std::error::Error for PutNowaitError<T> {}

impl fmt::Display for GetNowaitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the queue is empty"),
            Self::ShutDown => QueueShutDown.fmt(f),
        }
    }
}

impl std::error::Error for GetNowaitError {}

/// A queue of any order: see [`Queue`], [`LifoQueue`], [`PriorityQueue`].
///
/// Fair: who waits first gets the first item, or the first room. What comes to a task together with a cancellation goes to
/// the next who waits.
///
/// ```
/// use ropewalk::asyncio::{self, Queue};
/// use std::rc::Rc;
///
/// asyncio::run(async {
///     let queue = Rc::new(Queue::new(2));
///     let other = queue.clone();
///     let worker = asyncio::create_task(async move {
///         let mut sum = 0;
///         while let Ok(number) = other.get().await {
///             sum += number;
///             other.task_done()?;
///         }
///         Ok(sum)
///     });
///     for number in 1..=4 {
///         queue.put(number).await?; // waits for room
///     }
///     queue.join().await?; // every item has been worked on
///     queue.shutdown(false);
///     assert_eq!(worker.await?, 10);
///     Ok(())
/// })
/// # .unwrap();
/// ```
pub struct AnyQueue<S: Order> {
    items: RefCell<S>,
    maxsize: usize,
    /// A permit for each item that nobody has been promised.
    filled: Permits,
    /// A permit for each item that there is room for and nobody has been promised; not used without a bound.
    room: Permits,
    /// Items put and not reported done.
    unfinished: Cell<usize>,
    finished: Waiters,
    shut_down: Cell<bool>,
}

impl<S: Order> AnyQueue<S> {
    /// A queue of up to `maxsize` items; 0: of any number.
    pub fn new(maxsize: usize) -> Self {
        Self {
            items: RefCell::default(),
            maxsize,
            filled: Permits::new(0),
            room: Permits::new(maxsize),
            unfinished: Cell::new(0),
            finished: Waiters::default(),
            shut_down: Cell::new(false),
        }
    }

    /// Waits for room and puts `item` in.
    ///
    /// # Errors
    /// The task was cancelled, or the queue was shut down ([`QueueShutDown`]): the item is dropped.
    pub async fn put(&self, item: S::Item) -> Result<()> {
        let room = self.maxsize == 0 || self.room.acquire().await?;
        if !room || self.shut_down.get() {
            return Err(QueueShutDown.into());
        }
        self.put_in(item);
        Ok(())
    }

    /// Puts `item` in if there is room that no earlier task waits for.
    ///
    /// # Errors
    /// There is none, or the queue was shut down; the item comes back.
    pub fn put_nowait(&self, item: S::Item) -> Result<(), PutNowaitError<S::Item>> {
        if self.shut_down.get() {
            return Err(PutNowaitError::ShutDown(item));
        }
        if self.maxsize > 0 && !self.room.try_acquire() {
            return Err(PutNowaitError::Full(item));
        }
        self.put_in(item);
        Ok(())
    }

    fn put_in(&self, item: S::Item) {
        self.items.borrow_mut().put(item);
        self.unfinished.set(self.unfinished.get() + 1);
        self.filled.release();
    }

    /// Waits for an item and takes it out.
    ///
    /// # Errors
    /// The task was cancelled, or the queue was shut down and is empty ([`QueueShutDown`]).
    pub async fn get(&self) -> Result<S::Item> {
        match self.filled.acquire().await? {
            true => self.take_out().ok_or_else(|| QueueShutDown.into()),
            false => Err(QueueShutDown.into()),
        }
    }

    /// Takes an item out if there is one that no earlier task waits for.
    ///
    /// # Errors
    /// There is none.
    pub fn get_nowait(&self) -> Result<S::Item, GetNowaitError> {
        let item = self.filled.try_acquire().then(|| self.take_out()).flatten();
        item.ok_or(match self.shut_down.get() {
            true => GetNowaitError::ShutDown,
            false => GetNowaitError::Empty,
        })
    }

    /// None if a shutdown took the item that was promised.
    fn take_out(&self) -> Option<S::Item> {
        let item = self.items.borrow_mut().get()?;
        if self.maxsize > 0 {
            self.room.release();
        }
        Some(item)
    }

    /// Says that the work on an item is done; see [`join`](AnyQueue::join).
    ///
    /// # Errors
    /// One that [`is_misuse`](Error::is_misuse) if it was said of all before (Python: `ValueError`).
    pub fn task_done(&self) -> Result<()> {
        let Some(left) = self.unfinished.get().checked_sub(1) else {
            return Err(Error::misuse("task_done() called too many times"));
        };
        self.unfinished.set(left);
        if left == 0 {
            self.finished.tell_all(true);
        }
        Ok(())
    }

    /// Waits until [`task_done`](AnyQueue::task_done) was called for every item that was put in.
    ///
    /// # Errors
    /// The task was cancelled.
    pub async fn join(&self) -> Result<(), Cancelled> {
        if self.unfinished.get() > 0 {
            cancellable(self.finished.wait(|_| ())).await?;
        }
        Ok(())
    }

    /// Ends the queue (Python 3.13): who waits for room fails at once, who waits for an item once the queue is empty.
    ///
    /// With `immediate` the items are dropped and count as done.
    pub fn shutdown(&self, immediate: bool) {
        self.shut_down.set(true);
        let mut dropped = None; // at the end, for their destructors may come back, or panic
        if immediate {
            let items = dropped.insert(self.items.take());
            self.filled.clear();
            let left = self.unfinished.get().saturating_sub(items.count());
            self.unfinished.set(left);
            if left == 0 {
                self.finished.tell_all(true);
            }
        }
        self.room.close();
        self.filled.close();
    }

    /// How many items there are.
    pub fn qsize(&self) -> usize {
        self.items.borrow().count()
    }

    /// Whether there is no item.
    pub fn empty(&self) -> bool {
        self.qsize() == 0
    }

    /// Whether there is no room.
    pub fn full(&self) -> bool {
        self.maxsize > 0 && self.qsize() >= self.maxsize
    }

    /// How many items there can be; 0: any number.
    pub fn maxsize(&self) -> usize {
        self.maxsize
    }
}

impl<S: Order> fmt::Debug for AnyQueue<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue")
            .field("maxsize", &self.maxsize)
            .field("qsize", &self.qsize())
            .field("getters", &self.filled.waiting())
            .field("putters", &self.room.waiting())
            .field("tasks", &self.unfinished.get())
            .finish()
    }
}
