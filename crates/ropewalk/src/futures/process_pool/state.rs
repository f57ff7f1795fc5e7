//! Which task is where, and every step that moves one: a pool's state, without its lock.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::process::{Signal, pidfd_send_signal};

use super::job::{Death, Job, Outcome, Place};
use super::link::{Broken, Link, Said, Sent};
use super::pool::Statistics;
use super::wire::now;
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

#[derive(Default)]
pub(super) struct State {
    pub(super) queue: VecDeque<Arc<Job>>,
    pub(super) workers: Vec<Worker>,
    /// How many workers there are to be.
    pub(super) target: usize,
    pub(super) pending: usize,
    pub(super) closing: bool,
    pub(super) broken: Option<Arc<str>>,
    /// A thread that waits for a result receives for all: the supervisor need not be woken.
    pub(super) receiver_waits: bool,
    /// How many threads wait for a change of the state.
    pub(super) onlookers: usize,
    /// The supervisor must look: a time limit began to run, say.
    pub(super) call_supervisor: bool,
    /// When it was last looked for workers that are at one task for long.
    looked: u64,
    /// The average time of a task, in nanoseconds.
    average: f64,
    pub(super) statistics: Statistics,
    pub(super) supervised: bool,
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

/// Outcomes to be told once the lock is free.
pub(super) type Over = Vec<(Arc<Job>, Outcome)>;

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

    pub(super) fn condemn(&mut self, task: &Job) -> bool {
        let condemned = self.link.condemn(task);
        if condemned {
            self.kill();
        }
        condemned
    }
}

impl State {
    pub(super) fn worker(&mut self, number: u32) -> Option<&mut Worker> {
        self.workers.iter_mut().find(|worker| worker.number == number)
    }

    pub(super) fn has_news(&self) -> bool {
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

    pub(super) fn cancel_pending(&mut self, over: &mut Over) {
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
