//! The pool: its state behind a lock, and who is told of changes. Starting and burying workers is the supervisor's.

use std::cell::Cell;
use std::io;
use std::os::fd::OwnedFd;
use std::process::Command;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use rustix::event::EventfdFlags;
use rustix::process::{Signal, pidfd_send_signal};

use super::bell::poke;
use super::job::{Job, Outcome, Place};
use super::message::Message;
use super::segment::{Segment, Sharing};
use super::state::{Over, State};
use super::supervisor;
use super::wire::{POOL, PoolMemory};
use super::worker::Settings;
use crate::park::{Futex, Wake, spin};
use crate::sync::lock;

/// How a pool works.
pub struct Config {
    /// The most workers.
    pub max_workers: usize,
    /// The command that starts a worker, which then takes its link with
    /// [`WorkerLink::from_stdin`](super::WorkerLink::from_stdin).
    pub command: Box<dyn Fn() -> Command + Send + Sync>,
    /// What a worker gets before its first task.
    pub setup: Message,
    /// A worker is replaced after so many tasks.
    pub max_tasks_per_child: Option<u64>,
    /// A worker is replaced after a task that leaves it with more resident memory than this, in bytes.
    pub max_memory_per_child: Option<u64>,
    /// The most tasks that are submitted and not over.
    pub max_pending: Option<usize>,
}

/// Why a task was not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// The pool was shut down.
    Shutdown,
    /// The pool cannot run tasks any more: why.
    Broken(Arc<str>),
    /// As many tasks are pending as may be.
    Full,
    /// This process is a fork of the one that made the pool.
    Forked,
}

/// What a pool has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Workers alive.
    pub workers: usize,
    /// Tasks that no worker was sent yet.
    pub queued: usize,
    /// Tasks that are submitted and not over.
    pub pending: usize,
    /// Tasks that a worker answered.
    pub done: u64,
    /// Workers that were started in place of another.
    pub restarts: u64,
    /// Bytes sent to workers in tasks that they answered.
    pub bytes_sent: u64,
    /// Bytes received in answers.
    pub bytes_received: u64,
}

/// A pool of worker processes that turn messages into messages.
///
/// Dropping it lets the pending tasks finish and the workers exit, without waiting.
///
/// In a fork of its process a pool is dead: it accepts nothing, and its threads and workers are the parent's.
pub struct Pool {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    state: Mutex<State>,
    pub(super) config: Config,
    pub(super) setup: Mutex<Message>,
    pub(super) memory: PoolMemory,
    pub(super) segment: Segment,
    pub(super) eventfd: OwnedFd,
    pid: u32,
    /// Changes with the state, if somebody waits for that.
    changes: Futex,
    /// One when the supervisor has ended.
    pub(super) ended: Futex,
}

thread_local! {
    /// Whether this thread is telling outcomes: it may be the supervisor's, and must not wait for a pool then.
    static TELLS: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread may wait for what pools do: not in a callback, which is called by whoever ends a task.
pub(super) fn may_wait() -> bool {
    !TELLS.get()
}

impl Pool {
    /// A pool without workers: they are started when there are tasks for them.
    ///
    /// # Errors
    /// Memory or file descriptors could not be had.
    pub fn new(config: Config) -> io::Result<Self> {
        let segment = Segment::new(POOL)?;
        let memory = PoolMemory::new(segment.map(Sharing::Shared)?).ok_or(io::ErrorKind::OutOfMemory)?;
        let mut config = config;
        let setup = std::mem::replace(&mut config.setup, Message::new(&[])?);
        let shared = Shared {
            state: Mutex::default(),
            config,
            setup: Mutex::new(setup),
            memory,
            segment,
            eventfd: rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            pid: std::process::id(),
            changes: Futex::new(0),
            ended: Futex::new(0),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// Whether this process is a fork of the one that made the pool.
    pub fn is_forked(&self) -> bool {
        self.shared.pid != std::process::id()
    }

    /// Takes `task` on.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn submit(&self, task: Arc<Job>) -> Result<(), Refused> {
        if self.is_forked() {
            return Err(Refused::Forked);
        }
        let mut over = Over::new();
        let mut state = self.shared.lock();
        if let Some(reason) = &state.broken {
            return Err(Refused::Broken(reason.clone()));
        }
        if state.closing {
            return Err(Refused::Shutdown);
        }
        if self
            .shared
            .config
            .max_pending
            .is_some_and(|most| state.pending >= most)
        {
            return Err(Refused::Full);
        }
        state.pending += 1;
        task.set_place(Place::Queued);
        state.queue.push_back(task);
        state.refill(&mut over);
        // As many workers as there are tasks, and no more than may be.
        let most = self.shared.config.max_workers;
        if state.target < state.pending.min(most) {
            state.target += 1;
            state.call_supervisor = true;
        }
        let started = self.supervise(&mut state);
        self.shared.leave(state, over);
        self.started(started);
        Ok(())
    }

    /// Waits until [`submit`](Self::submit) need not say [`Refused::Full`], a signal or `deadline`.
    pub fn wait_for_room(&self, deadline: Option<Instant>) -> Wake {
        let most = self.shared.config.max_pending.unwrap_or(usize::MAX);
        self.wait_while(
            |state| state.pending >= most && state.broken.is_none() && !state.closing,
            deadline,
        )
    }

    /// Sleeps once, if the state is `so`.
    fn wait_while(&self, so: impl Fn(&State) -> bool, deadline: Option<Instant>) -> Wake {
        if self.is_forked() {
            return Wake::Woken;
        }
        let mut state = self.shared.lock();
        if !so(&state) {
            return Wake::Woken;
        }
        state.onlookers += 1;
        // Under the lock, as each change of it: what the kernel compares is as old as what `so` saw.
        let seen = self.shared.changes.load(Ordering::Relaxed);
        drop(state);
        let wake = self.shared.changes.wait(seen, deadline);
        self.shared.lock().onlookers -= 1;
        wake
    }

    /// Starts all workers, now.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn warm_up(&self) -> Result<(), Refused> {
        if self.is_forked() {
            return Err(Refused::Forked);
        }
        let mut state = self.shared.lock();
        if state.closing {
            return Err(Refused::Shutdown);
        }
        state.target = self.shared.config.max_workers;
        state.call_supervisor = true;
        let started = self.supervise(&mut state);
        self.shared.leave(state, Over::new());
        self.started(started);
        Ok(())
    }

    /// Waits, after [`warm_up`](Self::warm_up), until all workers are ready, a signal or `deadline`: whether they are.
    ///
    /// # Errors
    /// The pool is broken, or shut down.
    pub fn wait_until_ready(&self, deadline: Option<Instant>) -> Result<bool, Refused> {
        if self.is_forked() {
            return Err(Refused::Forked);
        }
        let all = |state: &State| {
            state.workers.iter().filter(|worker| worker.ready).count() >= self.shared.config.max_workers
        };
        self.wait_while(
            |state| state.broken.is_none() && !state.closing && !all(state),
            deadline,
        );
        let state = self.shared.lock();
        match &state.broken {
            Some(reason) => Err(Refused::Broken(reason.clone())),
            None if state.closing => Err(Refused::Shutdown),
            None => Ok(all(&state)),
        }
    }

    fn supervise(&self, state: &mut State) -> io::Result<()> {
        if state.supervised {
            return Ok(());
        }
        state.supervised = true;
        supervisor::start(self.shared.clone())
    }

    fn started(&self, supervisor: io::Result<()>) {
        if let Err(error) = supervisor {
            self.shared
                .break_down(format!("cannot start the supervisor: {error}"));
            self.shared.ended.store(1, Ordering::Release);
        }
    }

    /// Cancels a task that has not begun. False: it has, or is over.
    pub fn cancel(&self, task: &Arc<Job>) -> bool {
        self.end(task, false)
    }

    /// Cancels a task, and ends its worker if it runs. False: it is over.
    pub fn cancel_running(&self, task: &Arc<Job>) -> bool {
        self.end(task, true)
    }

    fn end(&self, task: &Arc<Job>, running: bool) -> bool {
        if self.is_forked() {
            return false;
        }
        let mut state = self.shared.lock();
        let ended = match task.place() {
            Place::Nowhere => false,
            // It stays in the queue, a shell that whoever comes to it throws away.
            Place::Queued => true,
            Place::Sent(number) => state
                .worker(number)
                .is_some_and(|worker| worker.link.take_back(task) || (running && worker.condemn(task))),
        };
        if ended {
            let mut over = Over::new();
            state.conclude(task.clone(), Outcome::Cancelled, &mut over);
            state.refill(&mut over);
            self.shared.leave(state, over);
        }
        ended
    }

    /// Whether a worker has begun the task and it is not over.
    pub fn is_running(&self, task: &Arc<Job>) -> bool {
        if self.is_forked() {
            return false;
        }
        let mut state = self.shared.lock();
        match task.place() {
            Place::Sent(number) => state
                .worker(number)
                .is_some_and(|worker| worker.link.began(task).is_some()),
            _ => false,
        }
    }

    /// Accepts no more tasks. The workers exit when the pending ones are over.
    pub fn shutdown(&self, cancel_pending: bool) {
        if self.is_forked() {
            return;
        }
        let mut over = Over::new();
        let mut state = self.shared.lock();
        state.closing = true;
        if cancel_pending {
            state.cancel_pending(&mut over);
        }
        state.call_supervisor = true;
        if !state.supervised {
            self.shared.ended.store(1, Ordering::Release);
        }
        self.shared.leave(state, over);
    }

    /// Whether every worker has exited after [`shutdown`](Self::shutdown).
    pub fn has_ended(&self) -> bool {
        self.is_forked() || self.shared.ended.load(Ordering::Acquire) != 0
    }

    /// Waits until every worker has exited after [`shutdown`](Self::shutdown), a signal or `deadline`.
    pub fn wait_for_end(&self, deadline: Option<Instant>) -> Wake {
        if self.has_ended() {
            return Wake::Woken;
        }
        self.shared.ended.wait(0, deadline)
    }

    /// Sends `signal` to every worker.
    pub fn signal(&self, signal: Signal) {
        if self.is_forked() {
            return;
        }
        for worker in &self.shared.lock().workers {
            // Fails if it is dead, which is noticed elsewhere.
            let _ = pidfd_send_signal(&worker.pidfd, signal);
        }
    }

    /// Ends every worker with `signal`; all that is pending fails, and nothing more is accepted.
    pub fn kill(&self, signal: Signal) {
        if self.is_forked() {
            return;
        }
        self.signal(signal);
        self.shared.break_down("the workers were ended on request".into());
        self.shutdown(false);
    }

    /// Why the pool cannot run tasks any more.
    pub fn why_broken(&self) -> Option<Arc<str>> {
        if self.is_forked() {
            return None;
        }
        self.shared.lock().broken.clone()
    }

    /// The processes of the workers.
    pub fn pids(&self) -> Vec<u32> {
        if self.is_forked() {
            return Vec::new();
        }
        self.shared
            .lock()
            .workers
            .iter()
            .map(|worker| worker.pid)
            .collect()
    }

    /// What the pool has done.
    pub fn statistics(&self) -> Statistics {
        if self.is_forked() {
            return Statistics::default();
        }
        let state = self.shared.lock();
        Statistics {
            workers: state.workers.len(),
            queued: state
                .queue
                .iter()
                .filter(|task| task.place() == Place::Queued)
                .count(),
            pending: state.pending,
            ..state.statistics
        }
    }

    /// Receives results in this thread until `done`, a signal or `deadline`; may say that it was interrupted when
    /// it was not.
    ///
    /// Saves the way from the worker over the supervisor to this thread. One thread at a time does it for all:
    /// `None` says that another does, or that the pool is not this process's, and that the caller must wait by
    /// other means.
    pub fn receive_until(&self, done: impl Fn() -> bool, deadline: Option<Instant>) -> Option<Wake> {
        if self.is_forked() {
            return None;
        }
        let shared = &*self.shared;
        let bell = shared.memory.bell();
        {
            let mut state = shared.lock();
            if state.receiver_waits || state.workers.is_empty() {
                return None;
            }
            state.receiver_waits = true;
            bell.never_mind();
        }
        let mut rounds = 0;
        let outcome = loop {
            let found = spin(|| (shared.receive() || done()).then_some(()));
            if done() {
                break Wake::Woken;
            }
            if found.is_some() {
                // Other tasks' results without a pause must not keep this thread from its deadline and its signals.
                rounds += 1;
                if rounds % 64 == 0 {
                    break Wake::Interrupted;
                }
                continue;
            }
            bell.expect();
            if done() || shared.lock().has_news() {
                bell.never_mind();
                continue;
            }
            match bell.sleep(deadline) {
                Wake::Woken => {}
                other => break other,
            }
        };
        // Back to the supervisor, which sleeps in its poll or is about to look again.
        let mut state = shared.lock();
        state.receiver_waits = false;
        // Under the lock, so that it does not overwrite what the next thread to receive says.
        bell.expect_in_poll();
        drop(state);
        shared.receive();
        Some(outcome)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shutdown(false);
    }
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Tells outcomes, under no lock.
    pub(super) fn tell(&self, over: Over) {
        if over.is_empty() {
            return;
        }
        let before = TELLS.replace(true);
        for (task, outcome) in over {
            task.finish(outcome);
        }
        TELLS.set(before);
        // A thread that receives for all sleeps on the bell, not on its own future.
        self.memory.bell().ring_word();
    }

    /// Receives what there is; whether there was anything.
    fn receive(&self) -> bool {
        let mut over = Over::new();
        let mut state = self.lock();
        if !state.has_news() {
            return false;
        }
        state.receive(&mut over);
        self.leave(state, over);
        true
    }

    /// What every thread but the supervisor owes after it has changed the state.
    fn leave(&self, mut state: MutexGuard<'_, State>, over: Over) {
        let call = std::mem::take(&mut state.call_supervisor) || (state.closing && state.pending == 0);
        self.unlock(state);
        if call {
            poke(&self.eventfd);
        }
        self.tell(over);
    }

    /// Lets the state go, and tells those who wait for a change of it.
    pub(super) fn unlock(&self, state: MutexGuard<'_, State>) {
        let onlookers = state.onlookers > 0;
        if onlookers {
            // Relaxed: changed and read under the lock.
            self.changes.fetch_add(1, Ordering::Relaxed);
        }
        drop(state);
        if onlookers {
            self.changes.wake_all();
        }
    }

    /// The supervisor is about to poll. True: there is work, it must not.
    pub(super) fn prepare_to_poll(&self) -> bool {
        let state = self.lock();
        if !state.receiver_waits {
            self.memory.bell().expect_in_poll();
        }
        state.has_news()
    }

    pub(super) fn settings(&self) -> Settings {
        Settings {
            max_tasks: self.config.max_tasks_per_child,
            max_memory: self.config.max_memory_per_child,
        }
    }

    /// The pool can do no more, for this reason: everything pending fails, the workers are killed.
    pub(super) fn break_down(&self, reason: String) {
        let reason: Arc<str> = reason.into();
        let mut over = Over::new();
        let mut state = self.lock();
        if state.broken.is_none() {
            state.broken = Some(reason.clone());
        }
        let mut pending: Vec<_> = state.queue.drain(..).collect();
        for worker in &mut state.workers {
            worker.kill();
            pending.extend(worker.link.remains().into_iter().map(|(task, _)| task));
        }
        for task in pending {
            if task.place() != Place::Nowhere {
                state.conclude(task, Outcome::Broken(reason.clone()), &mut over);
            }
        }
        self.unlock(state);
        self.tell(over);
        poke(&self.eventfd);
    }
}
