//! The engine under every event loop: a ready ring, a timer heap, a reactor and an inbox for other threads.
//!
//! The engine decides *when* a thing runs and never runs, wakes or drops one: its owner takes entries out and
//! runs them. One owner is the loop of Python, another the loop of this crate's own tasks; each says by a
//! [`Host`] what its entries are.
//!
//! # A turn
//!
//! ```
//! use ropewalk::asyncio::engine::{Engine, Host};
//!
//! struct Calls;
//! impl Host for Calls {
//!     type Entry = fn() -> u32;
//!     type Mail = fn() -> u32;
//!     type Source = ();
//!     fn receive(mail: Self::Mail) -> Self::Entry {
//!         mail
//!     }
//! }
//!
//! let mut engine = Engine::<Calls>::new()?;
//! engine.push(|| 1);
//! let now = engine.time(); // nanoseconds
//! engine.push_at(now + 1_000_000, || 2);
//! let mut seen = Vec::new();
//! while seen.len() < 2 {
//!     if let Some(wait) = engine.wait(true) {
//!         let woken = wait.block(); // the engine is not borrowed here: a GIL may be released
//!         engine.woke(woken)?;
//!         while let Some(event) = engine.next_event() {
//!             let _source = engine.reactor.source(event.fd); // push what waits for it
//!         }
//!     }
//!     engine.expire();
//!     for _ in 0..engine.ready() {
//!         // an entry pushed from here on belongs to the next turn
//!         if let Some(call) = engine.pop() {
//!             seen.push(call());
//!         }
//!     }
//! }
//! assert_eq!(seen, [1, 2]);
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! # Order
//!
//! Entries run first in, first out. A turn appends what I/O made ready, then the timers that are due, by
//! deadline and, among equal deadlines, in the order of insertion. Nothing else moves an entry.
//!
//! # Threads
//!
//! - Whoever holds `&mut Engine` owns ring, heap and reactor. For Rust's loop that is one thread; for Python's,
//!   whichever thread holds the GIL. No method blocks, so a borrow is always short.
//! - [`Wait::block`] is the only place that blocks. It borrows nothing: it owns a share of the epoll descriptor
//!   and the inbox, so that other threads may use the engine (with the GIL, say) meanwhile.
//! - Every other thread speaks through [`Remote`]: it sends mail, or rings. The eventfd is written only when the
//!   loop sleeps; `inbox.rs` holds the protocol and its proof.
//! - The engine never drops an entry while borrowed, since a destructor may come back to the engine: a timer
//!   cancelled is handed out, or leaves through the ready ring, and its owner, seeing that it is cancelled, skips it. Only dropping
//!   the engine drops what is left; [`Engine::pop`], [`Timers::take`] and [`Reactor::take`] empty it before.
//!
//! # When it polls
//!
//! A poll costs a system call, so while entries are ready a turn looks at the clock once in 16 runs and polls
//! once in 50 microseconds. With nothing ready it sleeps until the next deadline, or an event, or mail. After a sleep
//! that another thread ended it looks for mail a few microseconds before the next one: an answer from a thread often
//! comes sooner than an idle core wakes.

mod clock;
mod inbox;
mod reactor;
mod timers;

#[cfg(all(test, not(loom)))]
mod tests;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

pub use clock::{Clock, Nanos};
use inbox::Inbox;
use reactor::{Bell, Events};
pub use reactor::{Event, Interest, Reactor, Readiness, Trigger};
pub use timers::Timers;

use crate::park::spin;

/// Entries run between two looks at the clock.
const CLOCK_EVERY: u32 = 16;
/// How long ready entries may keep the engine from polling, in nanoseconds.
const POLL_EVERY: Nanos = 50_000;

/// What an engine runs.
pub trait Host {
    /// What the ready ring and the timers hold.
    type Entry;
    /// What other threads send.
    type Mail: Send;
    /// What is kept with a registered descriptor: whoever waits for it.
    type Source;

    /// Makes an entry of what another thread sent; called on the engine's thread.
    fn receive(mail: Self::Mail) -> Self::Entry;

    /// Whether the entry of a timer has been cancelled, and is to be dropped from the heap before its deadline.
    fn is_cancelled(_entry: &Self::Entry) -> bool {
        false
    }
}

/// An event loop without a language; see the [module](self).
pub struct Engine<H: Host> {
    ready: VecDeque<H::Entry>,
    /// Entries that wait for a time.
    pub timers: Timers<H>,
    /// Descriptors and who waits for them.
    pub reactor: Reactor<H::Source>,
    /// Where the time comes from; replace it to steer time in tests.
    pub clock: Clock,
    shared: Arc<Shared<H::Mail>>,
    /// Away while a wait has it.
    poller: Option<Poller<H::Mail>>,
    /// The time as last read.
    now: Nanos,
    polled: Option<Nanos>,
    /// Whether another thread ended the last sleep: the next may be as short, so it begins with a look.
    rung: bool,
    runs: u32,
}

/// What the loop shares with other threads.
struct Shared<M> {
    inbox: Inbox<M>,
    bell: Bell,
}

impl<M> Shared<M> {
    fn ring(&self) {
        if self.inbox.rouse() {
            self.bell.ring();
        }
    }
}

/// All that a wait needs, kept from one to the next: sharing it anew each time would be four atomic exchanges.
struct Poller<M> {
    shared: Arc<Shared<M>>,
    epoll: Arc<std::os::fd::OwnedFd>,
    events: Events,
}

impl<H: Host> Engine<H> {
    /// Makes an engine on the system's monotonic clock.
    ///
    /// # Errors
    /// When the system gives no descriptor for epoll or eventfd.
    pub fn new() -> io::Result<Self> {
        let reactor = Reactor::new()?;
        let bell = Bell::new(&reactor)?;
        let clock = Clock::Monotonic;
        Ok(Self {
            ready: VecDeque::with_capacity(64),
            timers: Timers::new(),
            poller: None,
            shared: Arc::new(Shared {
                inbox: Inbox::new(),
                bell,
            }),
            now: clock.now(),
            polled: None,
            rung: false,
            runs: 0,
            reactor,
            clock,
        })
    }

    /// A handle by which any thread reaches this engine.
    pub fn remote(&self) -> Remote<H::Mail> {
        Remote(self.shared.clone())
    }

    /// Wakes the loop if it sleeps, as [`Remote::ring`] does, for whoever has the engine.
    pub fn ring(&self) {
        self.shared.ring();
    }

    /// The time now, in nanoseconds of the engine's clock.
    #[inline]
    pub fn time(&mut self) -> Nanos {
        self.now = self.clock.now();
        self.runs = 0;
        self.now
    }

    /// Appends an entry to the ready ring.
    #[inline]
    pub fn push(&mut self, entry: H::Entry) {
        self.ready.push_back(entry);
    }

    /// Makes an entry ready once the clock has reached `when`.
    #[inline]
    pub fn push_at(&mut self, when: Nanos, entry: H::Entry) {
        self.timers.insert(when, entry);
    }

    /// How many entries are ready.
    #[inline]
    pub fn ready(&self) -> usize {
        self.ready.len()
    }

    /// The ready entries in order, for garbage collectors and debuggers.
    pub fn iter(&self) -> impl Iterator<Item = &H::Entry> {
        self.ready.iter()
    }

    /// Takes the oldest ready entry, to be run.
    #[inline]
    pub fn pop(&mut self) -> Option<H::Entry> {
        self.runs += 1;
        self.ready.pop_front()
    }

    /// Takes a ready entry out of its order, the oldest being number 0, which takes its place: for owners that try other orders.
    pub fn pop_nth(&mut self, number: usize) -> Option<H::Entry> {
        self.ready.swap(0, number);
        self.pop()
    }

    /// Counts a timer cancelled, and once such timers are many hands them out, to be dropped outside the borrow.
    #[must_use = "a destructor may come back to the engine"]
    pub fn timer_cancelled(&mut self) -> Vec<H::Entry> {
        self.timers.cancelled()
    }

    /// Forgets when it polled last, so that the next turn polls: to be called when a loop starts to run.
    pub fn start(&mut self) {
        self.polled = None;
        self.runs = 0;
    }

    /// Begins a turn: tells whether it polls, and for how long if `may_block` holds and nothing is ready.
    pub fn wait(&mut self, may_block: bool) -> Option<Wait<H::Mail>> {
        if self.runs >= CLOCK_EVERY {
            self.time();
        }
        let mut busy = !may_block || !self.ready.is_empty() || self.shared.inbox.has_mail();
        if !busy {
            self.timers.drop_cancelled(&mut self.ready);
            busy = !self.ready.is_empty();
        }
        let timeout = if busy {
            let fresh = self.polled.is_some_and(|at| self.now < at + POLL_EVERY);
            if fresh && !self.clock.is_virtual() {
                if self.shared.inbox.has_mail() {
                    self.receive();
                }
                return None;
            }
            Some(0)
        } else {
            let deadline = self.timers.next();
            let timeout = deadline.map(|when| when.saturating_sub(self.time()));
            self.clock.pass(timeout)
        };
        let poller = self.poller.take().unwrap_or_else(|| Poller {
            shared: self.shared.clone(),
            epoll: self.reactor.share(),
            events: Events::new(),
        });
        Some(Wait {
            poller,
            looks: self.rung,
            timeout,
        })
    }

    /// Takes in what a wait brought: mail goes to the ready ring, events to [`Engine::next_event`].
    ///
    /// # Errors
    /// When the wait failed. A wait cut short by a signal is no failure: it brings nothing.
    pub fn woke(&mut self, woken: Woken<H::Mail>) -> io::Result<()> {
        self.poller = Some(woken.poller);
        self.polled = Some(self.time());
        self.rung = woken.rung;
        self.receive();
        woken.result
    }

    /// The next event of the last wait whose descriptor is still registered as it was then.
    #[inline]
    pub fn next_event(&mut self) -> Option<Event> {
        let events = &mut self.poller.as_mut()?.events;
        while let Some((key, readiness)) = events.next() {
            if let Some(fd) = self.reactor.resolve(key) {
                return Some(Event { fd, readiness });
            }
        }
        None
    }

    /// Moves the timers that are due, as of the clock's last reading, to the ready ring.
    #[inline]
    pub fn expire(&mut self) {
        self.timers.expire(self.now, &mut self.ready);
    }

    fn receive(&mut self) {
        let ready = &mut self.ready;
        self.shared.inbox.drain(|mail| ready.push_back(H::receive(mail)));
    }
}

impl<H: Host> Drop for Engine<H> {
    fn drop(&mut self) {
        // The mail is dropped here, outside the inbox's lock.
        drop(self.shared.inbox.close());
    }
}

/// The way into an engine from any thread; see [`Engine::remote`].
pub struct Remote<M>(Arc<Shared<M>>);

impl<M> Clone for Remote<M> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<M: Send> Remote<M> {
    /// Sends mail and wakes the loop if it sleeps.
    ///
    /// # Errors
    /// Gives the mail back when the engine is gone.
    pub fn send(&self, mail: M) -> Result<(), M> {
        if self.0.inbox.send(mail)? {
            self.0.bell.ring();
        }
        Ok(())
    }

    /// Wakes the loop if it sleeps, so that it looks at its ring and timers again.
    pub fn ring(&self) {
        self.0.ring();
    }
}

/// A wait to come; see [`Engine::wait`].
#[must_use = "the turn goes on only after the wait"]
pub struct Wait<M> {
    poller: Poller<M>,
    /// Whether a sleep begins with a look at the inbox.
    looks: bool,
    /// Nanoseconds; none means for ever.
    timeout: Option<Nanos>,
}

impl<M> Wait<M> {
    /// Whether [`Wait::block`] may sleep.
    pub fn may_sleep(&self) -> bool {
        self.timeout != Some(0)
    }

    /// Waits for events, mail, the deadline or a signal, whichever comes first.
    pub fn block(mut self) -> Woken<M> {
        let may_sleep = self.may_sleep();
        let Poller {
            shared,
            epoll,
            events,
        } = &mut self.poller;
        let inbox = &shared.inbox;
        let news = || inbox.has_mail().then_some(());
        let sleeps = may_sleep && !(self.looks && spin(news).is_some()) && inbox.fall_asleep();
        let timeout = if sleeps { self.timeout } else { Some(0) };
        let result = events.poll(epoll, timeout);
        if sleeps {
            inbox.wake_up();
        }
        Woken {
            rung: may_sleep && inbox.has_mail(),
            poller: self.poller,
            result,
        }
    }
}

/// What a wait brought; see [`Engine::woke`].
#[must_use = "events are lost otherwise"]
pub struct Woken<M> {
    poller: Poller<M>,
    rung: bool,
    result: io::Result<()>,
}
