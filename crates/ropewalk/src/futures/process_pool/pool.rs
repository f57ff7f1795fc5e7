//! The pool: which task is where, and every step that moves one. Starting and burying workers is the supervisor's.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::process::Command;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rustix::event::EventfdFlags;
use rustix::process::{Signal, pidfd_send_signal};

use super::bell::poke;
use super::job::{Death, Job, Outcome, Place};
use super::link::{Broken, Link, Said, Sent};
use super::message::Message;
use super::segment::{Segment, Sharing};
use super::supervisor;
use super::wire::{POOL, PoolMemory, now};
use super::worker::Settings;
use crate::park::{Futex, Wake, spin};
use crate::sync::lock;

/// How much work a worker is sent ahead: so much that on a busy machine it need not wait for the next.
const AHEAD: Duration = Duration::from_millis(5);

/// The fewest and the most tasks that a worker has, the one that it runs included. Not so few even where tasks have been
/// long: if the next ones are short, the pool learns of it in one round trip. What a worker does not get to is taken
/// back.
const MIN_DEPTH: usize = 8;
const MAX_DEPTH: usize = 256;

/// How often it is looked whether a worker is at one task for so long that others should have what is behind it.
const LOOK: Duration = Duration::from_millis(1);

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

pub(super) struct State {
    pub(super) queue: VecDeque<Arc<Job>>,
    pub(super) workers: Vec<Worker>,
    /// How many workers there are to be.
    pub(super) target: usize,
    pub(super) pending: usize,
    pub(super) closing: bool,
    pub(super) broken: Option<Arc<str>>,
    /// A thread that waits for a result receives for all: the supervisor need not be woken.
    receiver_waits: bool,
    /// How many threads wait for a change of the state.
    onlookers: usize,
    /// The supervisor must look: a time limit began to run, say.
    pub(super) call_supervisor: bool,
    /// When it was last looked for workers that are at one task for long.
    looked: u64,
    /// The average time of a task, in nanoseconds.
    average: f64,
    pub(super) statistics: Statistics,
    supervised: bool,
}

pub(super) struct Worker {
    pub(super) number: u32,
    pub(super) pid: u32,
    pub(super) pidfd: OwnedFd,
    pub(super) link: Link,
    /// It has been through its setup.
    pub(super) ready: bool,
    /// It was killed, or its link is unusable: it gets no more tasks.
    pub(super) doomed: bool,
    /// It has something new in its ring and must be woken.
    fresh: bool,
    /// Its ring was full a moment ago.
    full: bool,
    /// It is at one task for long.
    stuck: bool,
}

thread_local! {
    /// Whether this thread is telling outcomes: it may be the supervisor's, and must not wait for a pool then.
    static TELLS: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread may wait for what pools do: not in a callback, which is called by whoever ends a task.
pub(super) fn may_wait() -> bool {
    !TELLS.get()
}

/// Outcomes to be told once the lock is free.
pub(super) type Over = Vec<(Arc<Job>, Outcome)>;

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
            state: Mutex::new(State {
                queue: VecDeque::new(),
                workers: Vec::new(),
                target: 0,
                pending: 0,
                closing: false,
                broken: None,
                receiver_waits: false,
                onlookers: 0,
                call_supervisor: false,
                looked: 0,
                average: 0.0,
                statistics: Statistics::default(),
                supervised: false,
            }),
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

impl Worker {
    pub(super) fn new(number: u32, pid: u32, pidfd: OwnedFd, link: Link) -> Self {
        Self {
            number,
            pid,
            pidfd,
            link,
            ready: false,
            doomed: false,
            fresh: false,
            full: false,
            stuck: false,
        }
    }

    pub(super) fn kill(&mut self) {
        self.doomed = true;
        // Fails if it is dead already.
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
    }

    fn send(&mut self, task: &Arc<Job>) -> Result<Sent, Broken> {
        let sent = self.link.send(task)?;
        if let Sent::Yes = sent {
            task.set_place(Place::Sent(self.number));
            self.fresh = true;
        }
        Ok(sent)
    }

    fn condemn(&mut self, task: &Job) -> bool {
        let condemned = self.link.condemn(task);
        if condemned {
            self.kill();
        }
        condemned
    }
}

impl State {
    fn worker(&mut self, number: u32) -> Option<&mut Worker> {
        self.workers.iter_mut().find(|worker| worker.number == number)
    }

    fn has_news(&self) -> bool {
        self.workers
            .iter()
            .any(|worker| !worker.doomed && worker.link.has_news())
    }

    /// A task is over.
    pub(super) fn conclude(&mut self, task: Arc<Job>, outcome: Outcome, over: &mut Over) {
        task.set_place(Place::Nowhere);
        self.pending -= 1;
        over.push((task, outcome));
    }

    fn cancel_pending(&mut self, over: &mut Over) {
        let mut cancelled: Vec<_> = self.queue.drain(..).collect();
        for worker in &mut self.workers {
            while let Some(task) = worker.link.take_back_last() {
                cancelled.push(task);
            }
        }
        for task in cancelled {
            if task.place() != Place::Nowhere {
                self.conclude(task, Outcome::Cancelled, over);
            }
        }
    }

    /// Takes in all answers and sends what there is room for.
    pub(super) fn receive(&mut self, over: &mut Over) {
        for index in 0..self.workers.len() {
            self.receive_from(index, over);
        }
        self.refill(over);
    }

    pub(super) fn receive_from(&mut self, index: usize, over: &mut Over) {
        let mut received = false;
        loop {
            let worker = &mut self.workers[index];
            match worker.link.receive() {
                Ok(None) => break,
                Ok(Some(Said::Ready)) => worker.ready = true,
                Ok(Some(Said::NotReady(message))) => {
                    worker.doomed = true;
                    let reason = String::from_utf8_lossy(message.first()).into_owned();
                    self.broken.get_or_insert(reason.into());
                    self.call_supervisor = true;
                }
                Ok(Some(Said::Answer {
                    task,
                    status,
                    message,
                    nanos,
                })) => {
                    received = true;
                    // The recent past counts. Short tasks after long ones are learnt quickly: they wait for each other,
                    // while what is sent ahead to no purpose is taken back.
                    let difference = nanos as f64 - self.average;
                    self.average += difference / if difference < 0.0 { 2.0 } else { 8.0 };
                    self.statistics.done += 1;
                    self.statistics.bytes_received += message.len() as u64;
                    if let Some(sent) = &*lock(&task.message) {
                        self.statistics.bytes_sent += sent.len() as u64;
                    }
                    self.conclude(task, Outcome::Returned { status, message }, over);
                }
                Err(Broken) => {
                    worker.kill();
                    break;
                }
            }
        }
        if received {
            self.workers[index].stuck = false;
            // It may wait for room for its next answer.
            self.workers[index].link.ring();
        }
    }

    fn depth(&self) -> usize {
        if self.average <= 0.0 {
            return MIN_DEPTH;
        }
        ((AHEAD.as_nanos() as f64 / self.average) as usize).clamp(MIN_DEPTH, MAX_DEPTH)
    }

    /// Sends queued tasks to workers with room, the one with the least to do first; when the queue is empty, lets
    /// workers without work have what others have not begun.
    pub(super) fn refill(&mut self, over: &mut Over) {
        self.take_back_from_stuck();
        let depth = self.depth();
        while let Some(task) = self.queue.pop_front() {
            if task.place() != Place::Queued {
                continue;
            }
            let free = self
                .workers
                .iter_mut()
                .filter(|worker| {
                    !worker.doomed && !worker.full && !worker.stuck && worker.link.load() < depth
                })
                .min_by_key(|worker| (worker.link.load(), !worker.ready));
            let Some(worker) = free else {
                self.queue.push_front(task);
                break;
            };
            match worker.send(&task) {
                Ok(Sent::Yes) => self.call_supervisor |= task.timeout.is_some(),
                Ok(Sent::Full) => {
                    worker.full = true;
                    self.queue.push_front(task);
                }
                Ok(Sent::Never(error)) => {
                    let reason = format!("cannot send the task: {error}").into();
                    self.conclude(task, Outcome::Broken(reason), over);
                }
                Err(Broken) => {
                    worker.kill();
                    self.queue.push_front(task);
                }
            }
        }
        if self.queue.is_empty() {
            self.share();
        }
        for worker in &mut self.workers {
            worker.full = false;
            if std::mem::take(&mut worker.fresh) {
                worker.link.ring();
            }
        }
    }

    /// From how many nanoseconds on a task takes unusually long, and `least` at least.
    fn long(&self, least: Duration) -> u64 {
        (least.as_nanos() as u64).max((2.0 * self.average) as u64)
    }

    /// Puts back at the head of the queue what waits behind a task that takes unusually long: it came before all that is
    /// in the queue.
    fn take_back_from_stuck(&mut self) {
        if self.workers.len() < 2 || self.queue.is_empty() {
            return;
        }
        let now = now();
        if now.saturating_sub(self.looked) < LOOK.as_nanos() as u64 {
            return;
        }
        self.looked = now;
        let long = self.long(AHEAD);
        for worker in &mut self.workers {
            worker.stuck = worker
                .link
                .first_began()
                .is_some_and(|began| now.saturating_sub(began) > long);
            if worker.stuck {
                while let Some(task) = worker.link.take_back_last() {
                    task.set_place(Place::Queued);
                    self.queue.push_front(task);
                }
            }
        }
    }

    /// Gives each worker without work half of what the busiest one has not begun.
    fn share(&mut self) {
        if self.workers.len() < 2 {
            return;
        }
        while let Some(idle) = self
            .workers
            .iter()
            .position(|worker| worker.ready && !worker.doomed && worker.link.load() == 0)
        {
            // What a worker has not begun: not its first task, unless it is not yet at work.
            let spare = |worker: &Worker| worker.link.load().saturating_sub(usize::from(worker.ready));
            let Some(busiest) = (0..self.workers.len()).max_by_key(|index| spare(&self.workers[*index]))
            else {
                return;
            };
            // All of it from a worker that is at one task for long, half from one that will get to it.
            let began = self.workers[busiest].link.first_began();
            let long = began.is_some_and(|began| now().saturating_sub(began) > self.long(LOOK));
            let spare = spare(&self.workers[busiest]);
            let share = if long { spare } else { spare.div_ceil(2) };
            let mut moved: Vec<_> = std::iter::from_fn(|| self.workers[busiest].link.take_back_last())
                .take(share)
                .collect();
            if moved.is_empty() {
                return;
            }
            while let Some(task) = moved.pop() {
                if matches!(self.workers[idle].send(&task), Ok(Sent::Yes)) {
                    self.call_supervisor |= task.timeout.is_some();
                    continue;
                }
                // Its ring is full of what was taken back from it before: the queue is as good a place.
                moved.push(task);
                for task in moved {
                    task.set_place(Place::Queued);
                    self.queue.push_front(task);
                }
                return;
            }
        }
    }

    /// What a dead worker leaves behind: what it had not begun goes back to the head of the queue.
    pub(super) fn bury(&mut self, number: u32, death: Death, over: &mut Over) -> Option<Worker> {
        let index = self.workers.iter().position(|worker| worker.number == number)?;
        self.receive_from(index, over);
        let mut worker = self.workers.swap_remove(index);
        for (task, begun) in worker.link.remains().into_iter().rev() {
            let again = !begun
                || task
                    .retries
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
                    .is_ok();
            if again {
                task.set_place(Place::Queued);
                self.queue.push_front(task);
            } else {
                self.conclude(task, Outcome::Died(death), over);
            }
        }
        Some(worker)
    }

    /// How many workers are missing.
    pub(super) fn missing(&self, most: usize) -> usize {
        let wanted = match (&self.broken, self.closing) {
            (Some(_), _) => 0,
            (None, true) => self.pending.min(most),
            (None, false) => self.target,
        };
        wanted.saturating_sub(self.workers.len())
    }

    /// Ends tasks that have run for too long. Returns how long until the next may have.
    pub(super) fn enforce_time_limits(&mut self, now: u64, over: &mut Over) -> Option<Duration> {
        let mut next: Option<u64> = None;
        for index in 0..self.workers.len() {
            let worker = &mut self.workers[index];
            let limited: Vec<_> = worker
                .link
                .under_way()
                .filter_map(|task| Some((task.clone(), task.timeout?)))
                .collect();
            for (task, timeout) in limited {
                let timeout = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
                let end = worker.link.began(&task).unwrap_or(now).saturating_add(timeout);
                if end > now {
                    next = Some(next.map_or(end, |next| next.min(end)));
                } else if worker.condemn(&task) {
                    task.set_place(Place::Nowhere);
                    self.pending -= 1;
                    over.push((task, Outcome::TimedOut));
                }
            }
        }
        next.map(|end| Duration::from_nanos(end - now))
    }
}
