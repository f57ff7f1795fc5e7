//! What a loop consists of, and what a turn of it does.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::panic::{self, AssertUnwindSafe};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::{CLOSED, EventLoop, ExceptionContext, remotes};
use crate::asyncio::engine::{self, Clock, Host, Interest, Nanos, Readiness, Remote, Trigger};
use crate::asyncio::error::{Error, Result};
use crate::asyncio::handle::{Call, Scheduled};
use crate::asyncio::signal::Signals;
use crate::asyncio::source::{Callbacks, Repeated, Source};
use crate::asyncio::task::{self, AnyTask, Due, LocalRef, Memory, SharedRef, Task};
use crate::asyncio::testing::Shuffle;
use crate::futures::{self, Executor, ThreadPoolExecutor};

/// What the engine runs.
pub(in crate::asyncio) enum Entry {
    Task(Due),
    Call(Rc<Scheduled>),
    /// A wake-up that came late; an entry, so that it is dropped where the engine is not borrowed.
    Stale(#[expect(dead_code, reason = "only dropped")] SharedRef),
}

/// What other threads send.
pub(in crate::asyncio) enum Mail {
    Wake(SharedRef),
    Call(Box<dyn FnOnce() + Send>),
}

pub(in crate::asyncio) struct Tasks;

impl Host for Tasks {
    type Entry = Entry;
    type Mail = Mail;
    type Source = Source;

    fn receive(mail: Mail) -> Entry {
        match mail {
            Mail::Wake(task) => task.received(),
            Mail::Call(call) => Entry::Call(Scheduled::new(Call::Function(call))),
        }
    }

    fn is_cancelled(entry: &Entry) -> bool {
        match entry {
            Entry::Task(_) | Entry::Stale(_) => false,
            Entry::Call(call) => call.is_cancelled(),
        }
    }
}

type Engine = engine::Engine<Tasks>;
type ExceptionHandler = Rc<dyn Fn(&EventLoop, &ExceptionContext)>;

pub(in crate::asyncio) struct Inner {
    /// Never 0, never another's: an address could be a dead loop's.
    pub(in crate::asyncio) id: u64,
    pub(super) remote: Remote<Mail>,
    /// None once the loop is closed. Never borrowed while user code runs.
    engine: RefCell<Option<Engine>>,
    tasks: RefCell<Slots>,
    pub(in crate::asyncio) memory: Memory,
    task_number: Cell<u64>,
    pub(super) running: Cell<bool>,
    pub(super) stopping: Cell<bool>,
    closing: Cell<bool>,
    pub(super) debug: Cell<bool>,
    pub(super) slow_callback_duration: Cell<Duration>,
    pub(super) exception_handler: RefCell<Option<ExceptionHandler>>,
    pub(in crate::asyncio) order: RefCell<Option<Shuffle>>,
    pub(in crate::asyncio) signals: Signals,
    /// The pool of `to_thread`, once there was a call.
    executor: RefCell<Option<ThreadPoolExecutor>>,
}

/// The tasks that are not done.
#[derive(Default)]
struct Slots {
    tasks: Vec<Option<LocalRef>>,
    free: Vec<u32>,
}

impl Inner {
    pub(super) fn new(clock: Option<Clock>) -> io::Result<Rc<Self>> {
        static ID: AtomicU64 = AtomicU64::new(1);
        let mut engine = Engine::new()?;
        if let Some(clock) = clock {
            engine.clock = clock;
            engine.time();
        }
        // Relaxed: a number, which orders nothing.
        let id = ID.fetch_add(1, Ordering::Relaxed);
        remotes::add(id, engine.remote());
        Ok(Rc::new(Self {
            id,
            remote: engine.remote(),
            engine: RefCell::new(Some(engine)),
            tasks: RefCell::default(),
            memory: Memory::default(),
            task_number: Cell::new(0),
            running: Cell::new(false),
            stopping: Cell::new(false),
            closing: Cell::new(false),
            debug: Cell::new(false),
            slow_callback_duration: Cell::new(Duration::from_millis(100)),
            exception_handler: RefCell::new(None),
            order: RefCell::new(None),
            signals: Signals::default(),
            executor: RefCell::new(None),
        }))
    }

    #[inline]
    fn engine<R>(&self, f: impl FnOnce(&mut Engine) -> R) -> Option<R> {
        self.engine.borrow_mut().as_mut().map(f)
    }

    pub(in crate::asyncio) fn is_closed(&self) -> bool {
        self.engine.borrow().is_none()
    }

    pub(in crate::asyncio) fn time(&self) -> Duration {
        Duration::from_nanos(self.engine(Engine::time).unwrap_or_default())
    }

    #[inline]
    pub(in crate::asyncio) fn push(&self, entry: Entry) {
        self.engine(|engine| engine.push(entry));
    }

    pub(in crate::asyncio) fn call_soon(&self, call: Call) -> Rc<Scheduled> {
        let call = Scheduled::new(call);
        self.push(Entry::Call(call.clone()));
        call
    }

    /// Has a call made once the loop's clock has come to `when`.
    pub(in crate::asyncio) fn call_at(&self, when: Duration, call: Call) -> Rc<Scheduled> {
        let call = Scheduled::new(call);
        self.engine(|engine| engine.push_at(nanos(when), Entry::Call(call.clone())));
        call
    }

    /// The same after `delay`; returns the time, too.
    pub(in crate::asyncio) fn call_later(&self, delay: Duration, call: Call) -> (Rc<Scheduled>, Duration) {
        let when = self.time().saturating_add(delay);
        (self.call_at(when, call), when)
    }

    pub(in crate::asyncio) fn timer_cancelled(&self) {
        drop(self.engine(Engine::timer_cancelled)); // outside the borrow
    }

    /// Makes a task and schedules it.
    #[inline]
    pub(in crate::asyncio) fn create_task<T, F>(&self, future: F) -> Task<T>
    where
        T: 'static,
        F: Future<Output = Result<T>> + 'static,
    {
        // While a loop is being closed destructors run, and what they begin would never come to its end.
        assert!(
            !(self.closing.get() || self.is_closed()),
            "the event loop is closed"
        );
        let mut slots = self.tasks.borrow_mut();
        let index = match slots.free.pop() {
            Some(index) => index,
            None => u32::try_from(slots.tasks.len()).expect("fewer tasks than would fill the memory"),
        };
        let task = task::new(self, index, future);
        let handle = task.handle();
        if let Some(due) = handle.due() {
            self.push(Entry::Task(due));
        }
        match slots.tasks.get_mut(index as usize) {
            Some(slot) => *slot = Some(handle),
            None => slots.tasks.push(Some(handle)),
        }
        task
    }

    /// The number in the name of the next task.
    pub(in crate::asyncio) fn task_number(&self) -> u64 {
        let number = self.task_number.get() + 1;
        self.task_number.set(number);
        number
    }

    pub(in crate::asyncio) fn forget_task(&self, index: u32) -> Option<LocalRef> {
        let mut slots = self.tasks.borrow_mut();
        let task = slots.tasks.get_mut(index as usize)?.take()?;
        slots.free.push(index);
        Some(task)
    }

    /// The task that is at this place now.
    pub(in crate::asyncio) fn task_at(&self, index: u32) -> Option<LocalRef> {
        self.tasks.borrow().tasks.get(index as usize)?.clone()
    }

    /// The program's tasks that are not done.
    pub(in crate::asyncio) fn all_tasks(&self) -> Vec<AnyTask> {
        self.tasks(|task| !task.hidden.get())
    }

    fn tasks(&self, which: impl Fn(&LocalRef) -> bool) -> Vec<AnyTask> {
        let slots = self.tasks.borrow();
        let tasks = slots.tasks.iter().flatten().filter(|task| which(task));
        tasks.cloned().map(AnyTask::new).collect()
    }

    /// Has a call made by the loop's pool.
    pub(in crate::asyncio) fn submit<T, F>(&self, call: F) -> Result<futures::Future<T>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let mut executor = self.executor.borrow_mut();
        let pool = ThreadPoolExecutor::builder().thread_name_prefix("asyncio");
        let executor = executor.get_or_insert_with(|| pool.build());
        Ok(executor.submit(call)?)
    }

    fn next_event(engine: &mut Engine) -> Option<(Source, Readiness)> {
        let event = engine.next_event()?;
        Some((engine.reactor.source(event.fd)?.clone(), event.readiness))
    }

    pub(in crate::asyncio) fn register(
        &self,
        fd: BorrowedFd<'_>,
        interest: Interest,
        trigger: Trigger,
        source: Source,
    ) -> io::Result<()> {
        match self.engine(|engine| engine.reactor.register(fd, interest, trigger, source)) {
            Some(Ok(())) => Ok(()),
            Some(Err((error, _))) => Err(error),
            None => Err(CLOSED.into()),
        }
    }

    /// The source comes back, to be dropped outside the engine.
    pub(in crate::asyncio) fn deregister(&self, fd: RawFd) -> Option<Source> {
        self.engine(|engine| engine.reactor.deregister(fd)).flatten()
    }

    /// Changes the callbacks of a descriptor; says whether `change` found one there before.
    pub(super) fn change_callbacks(
        &self,
        fd: BorrowedFd<'_>,
        change: impl FnOnce(&mut Callbacks) -> Option<Repeated>,
    ) -> Result<bool> {
        if self.is_closed() {
            return Err(CLOSED);
        }
        let number = fd.as_raw_fd();
        let before = self
            .engine(|engine| engine.reactor.source(number).cloned())
            .flatten();
        let known = before.is_some();
        let mut callbacks = match before {
            Some(Source::Tasks(_)) => {
                return Err(Error::misuse(
                    "the descriptor is a stream's or socket's of this loop: await that",
                ));
            }
            Some(Source::Callbacks(callbacks)) => callbacks,
            None => Callbacks::default(),
        };
        let old = change(&mut callbacks);
        let interest = callbacks.interest();
        if interest == Interest::default() {
            drop(self.deregister(number));
        } else if known {
            let source = Source::Callbacks(callbacks);
            let replaced = self.engine(|engine| {
                engine.reactor.modify(fd, interest)?;
                Ok::<_, io::Error>(
                    engine
                        .reactor
                        .source_mut(number)
                        .map(|place| std::mem::replace(place, source)),
                )
            });
            drop(replaced.transpose()?);
        } else {
            self.register(fd, interest, Trigger::Level, Source::Callbacks(callbacks))?;
        }
        Ok(old.is_some())
    }

    pub(super) fn start(&self) {
        self.engine(Engine::start);
    }

    /// One turn: polls, then runs what is ready now. What becomes ready meanwhile belongs to the next turn.
    pub(super) fn turn(self: &Rc<Self>) -> io::Result<()> {
        let may_block = !self.stopping.get();
        if let Some(wait) = self.engine(|engine| engine.wait(may_block)).flatten() {
            let woken = wait.block();
            self.engine(|engine| engine.woke(woken)).transpose()?;
            while let Some((source, readiness)) = self.engine(Self::next_event).flatten() {
                source.tell(self, readiness);
            }
        }
        let ready = self.engine(|engine| {
            engine.expire();
            engine.ready()
        });
        for left in (1..=ready.unwrap_or(0)).rev() {
            let pick = self.order.borrow_mut().as_mut().map(|order| order.below(left));
            let entry = self.engine(|engine| match pick {
                Some(number) => engine.pop_nth(number),
                None => engine.pop(),
            });
            if let Some(entry) = entry.flatten() {
                match self.debug.get() {
                    true => self.run_timed(entry),
                    false => self.run(entry),
                }
            }
        }
        Ok(())
    }

    #[inline]
    fn run(self: &Rc<Self>, entry: Entry) {
        match entry {
            Entry::Task(due) => due.run(),
            Entry::Stale(_) => {}
            Entry::Call(call) => match call.take() {
                Some(Call::Wake(waker)) => waker.wake(),
                Some(Call::Function(function)) => {
                    if let Err(payload) = panic::catch_unwind(AssertUnwindSafe(function)) {
                        EventLoop(self.clone()).call_exception_handler(&ExceptionContext {
                            message: "Exception in callback",
                            exception: Some(Error::panicked(payload)),
                            task: None,
                        });
                    }
                }
                None => {}
            },
        }
    }

    /// As `run`, and reports what holds the loop up.
    fn run_timed(self: &Rc<Self>, entry: Entry) {
        let task = match &entry {
            Entry::Task(due) => Some(due.task()),
            Entry::Call(_) | Entry::Stale(_) => None,
        };
        let begun = Instant::now();
        self.run(entry);
        if begun.elapsed() >= self.slow_callback_duration.get() {
            EventLoop(self.clone()).call_exception_handler(&ExceptionContext {
                message: "Executing took longer than slow_callback_duration",
                exception: None,
                task,
            });
        }
    }

    /// Drops everything that a loop holds, in this thread, and gives its descriptors back.
    pub(super) fn close(&self) {
        self.closing.set(true);
        // Futures first: their destructors may still cancel timers and wake tasks.
        let tasks = self.tasks(|_| true);
        tasks.iter().for_each(AnyTask::drop_future);
        self.signals.clear();
        remotes::remove(self.id);
        if let Some(engine) = self.engine.take() {
            drop_engine(engine);
        }
        // Waits for the calls that have begun; whose futures are gone, the others are cancelled. Last: one that waits for this loop is
        // told that it is closed.
        if let Some(executor) = self.executor.take() {
            executor.shutdown(true, true);
        }
    }
}

/// Drops what is left in an engine outside of it, since destructors may panic.
fn drop_engine(mut engine: Engine) {
    let mut left: Vec<_> = engine.timers.take().collect();
    left.extend(std::iter::from_fn(|| engine.pop()));
    let sources: Vec<_> = engine.reactor.take().collect();
    // A closure's destructor may panic as well; it has been reported by the hook.
    for entry in left {
        drop(panic::catch_unwind(AssertUnwindSafe(|| drop(entry))));
    }
    drop(panic::catch_unwind(AssertUnwindSafe(|| drop(sources))));
    drop(panic::catch_unwind(AssertUnwindSafe(|| drop(engine)))); // and the mail with it
}

fn nanos(time: Duration) -> Nanos {
    Nanos::try_from(time.as_nanos()).unwrap_or(Nanos::MAX)
}
