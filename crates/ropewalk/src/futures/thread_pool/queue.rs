//! The queue between those who submit and the workers of a thread pool: who waits, who is woken, who is started.
//!
//! Everything is decided under one lock that is held for a few dozen instructions and never across foreign code. The
//! queue starts no threads itself: it says when one is due, so that Rust's pool can start Rust threads and Python's
//! pool Python threads over the same queue.
//!
//! # Waking
//! At most one wake-up is under way (`waking`), and at most one worker spins (`spinning`). A push wakes somebody only
//! if neither is so: the one on his way will see the job. Whoever takes a job after waiting and leaves others behind
//! wakes the next (chain-wake), so a burst costs its submitter one wake-up, not one a job.
//!
//! Nothing is lost: `waking` is set together with a change of `word` under the lock while `sleeping > 0`. A sleeper read
//! `word` under the same lock before; so he either sleeps and is woken, or does not fall asleep. Whoever stops waiting
//! takes the lock, clears `waking`, and looks at the jobs before he sleeps again. A spinner does the same.
//!
//! # Starting
//! A push asks for a thread when more jobs are queued than workers wait (`idle`) and there are fewer than `max_threads`.
//! A thread that is being started counts as waiting.

use std::collections::VecDeque;
use std::time::Instant;

use crate::park::{self, Futex, Wake};
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::{Mutex, MutexGuard, lock};

/// Why a job was not accepted; it comes back with the reason.
#[derive(Debug)]
pub enum Refused<J> {
    /// The queue was closed.
    Closed(J),
    /// The queue holds as many jobs as it may.
    Full(J),
}

struct Inner<J> {
    jobs: VecDeque<J>,
    threads: usize,
    /// Workers that wait for a job, and threads being started.
    idle: usize,
    sleeping: usize,
    spinning: bool,
    waking: bool,
    waiting_for_room: usize,
    closed: bool,
}

/// The jobs of a thread pool and its workers' place to wait.
pub struct Queue<J> {
    inner: Mutex<Inner<J>>,
    /// The number of jobs, and one more once closed: what a spinner looks at. Written under the lock; only a hint.
    ready: AtomicUsize,
    /// Changes with every wake-up of a worker.
    word: Futex,
    /// Changes with every wake-up of somebody who waits for room.
    room: Futex,
    /// Changes when the last worker leaves.
    left: Futex,
    max_threads: usize,
    max_pending: usize,
}

impl<J> Queue<J> {
    /// A queue for at most `max_threads` workers that holds at most `max_pending` jobs.
    pub fn new(max_threads: usize, max_pending: usize) -> Self {
        Self {
            inner: Mutex::new(Inner {
                jobs: VecDeque::new(),
                threads: 0,
                idle: 0,
                sleeping: 0,
                spinning: false,
                waking: false,
                waiting_for_room: 0,
                closed: false,
            }),
            ready: AtomicUsize::new(0),
            word: Futex::new(0),
            room: Futex::new(0),
            left: Futex::new(0),
            max_threads,
            max_pending,
        }
    }

    /// Queues a job. True asks the caller to start a thread that runs a [`Worker`]; it is counted already, and
    /// [`not_started`](Self::not_started) takes that back.
    ///
    /// # Errors
    /// The job comes back if the queue is closed or full.
    pub fn push(&self, job: J) -> Result<bool, Refused<J>> {
        let mut inner = lock(&self.inner);
        if inner.closed {
            return Err(Refused::Closed(job));
        }
        if inner.jobs.len() >= self.max_pending {
            return Err(Refused::Full(job));
        }
        inner.jobs.push_back(job);
        self.update_ready(&inner);
        let start = inner.jobs.len() > inner.idle && inner.threads < self.max_threads;
        if start {
            inner.threads += 1;
            inner.idle += 1;
        }
        self.wake_for_rest(inner);
        Ok(start)
    }

    /// Waits until there may be room, or until the deadline or a signal. The queue may be full again on return.
    pub fn wait_for_room(&self, deadline: Option<Instant>) -> Wake {
        let mut inner = lock(&self.inner);
        if inner.jobs.len() < self.max_pending || inner.closed {
            return Wake::Woken;
        }
        inner.waiting_for_room += 1;
        let seen = self.room.load(Ordering::Relaxed);
        drop(inner);
        let wake = self.room.wait(seen, deadline);
        lock(&self.inner).waiting_for_room -= 1;
        wake
    }

    /// A thread that `push` asked for could not be started. Says whether any other is there to run the jobs.
    pub fn not_started(&self) -> bool {
        let mut inner = lock(&self.inner);
        inner.idle -= 1;
        self.leave(inner)
    }

    /// Counts a worker out. Says whether any other is there.
    fn leave(&self, mut inner: MutexGuard<'_, Inner<J>>) -> bool {
        inner.threads -= 1;
        let last = inner.threads == 0;
        if last {
            self.left.fetch_add(1, Ordering::Relaxed);
        }
        drop(inner);
        if last {
            self.left.wake_all();
        }
        !last
    }

    /// Waits until all workers have left, those being started included; once the queue is closed no more come.
    pub fn wait_for_workers(&self, deadline: Option<Instant>) -> Wake {
        loop {
            let inner = lock(&self.inner);
            if inner.threads == 0 {
                return Wake::Woken;
            }
            let seen = self.left.load(Ordering::Relaxed);
            drop(inner);
            let wake = self.left.wait(seen, deadline);
            if wake != Wake::Woken {
                return wake;
            }
        }
    }

    /// Accepts nothing more. Workers run what is queued and end.
    pub fn close(&self) {
        let mut inner = lock(&self.inner);
        inner.closed = true;
        self.update_ready(&inner);
        self.word.fetch_add(1, Ordering::Relaxed);
        self.room.fetch_add(1, Ordering::Relaxed);
        drop(inner);
        self.word.wake_all();
        self.room.wake_all();
    }

    /// Takes out all jobs, oldest first.
    pub fn drain(&self) -> VecDeque<J> {
        let mut inner = lock(&self.inner);
        let jobs = std::mem::take(&mut inner.jobs);
        self.update_ready(&inner);
        self.room.fetch_add(1, Ordering::Relaxed);
        drop(inner);
        self.room.wake_all();
        jobs
    }

    /// How many jobs are queued.
    pub fn len(&self) -> usize {
        lock(&self.inner).jobs.len()
    }

    /// Whether no job is queued.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many workers there are, those being started included.
    pub fn threads(&self) -> usize {
        lock(&self.inner).threads
    }

    /// How many of them wait for a job.
    pub fn idle(&self) -> usize {
        lock(&self.inner).idle
    }

    /// Whether some thread is at work inside the queue. In the child of a fork that thread does not exist, and the queue
    /// can never be used again.
    pub fn is_locked(&self) -> bool {
        self.inner.try_lock().is_err()
    }

    /// The worker's side, for a thread that `push` asked for.
    pub fn worker(&self) -> Worker<'_, J> {
        Worker {
            queue: self,
            waiting: true,
        }
    }

    fn update_ready(&self, inner: &Inner<J>) {
        self.ready
            .store(inner.jobs.len() + usize::from(inner.closed), Ordering::Relaxed);
    }

    /// Lets go of the lock, and wakes a sleeper if there are jobs and nobody is on his way to them.
    fn wake_for_rest(&self, mut inner: MutexGuard<'_, Inner<J>>) {
        let wake = !inner.jobs.is_empty() && inner.sleeping > 0 && !inner.waking && !inner.spinning;
        if wake {
            inner.waking = true;
            self.word.fetch_add(1, Ordering::Relaxed);
        }
        drop(inner);
        if wake {
            self.word.wake_one();
        }
    }
}

/// A worker thread's side of a [`Queue`]. Dropped, it says that the thread is gone.
pub struct Worker<'q, J> {
    queue: &'q Queue<J>,
    /// Whether this worker is counted as idle.
    waiting: bool,
}

impl<J> Worker<'_, J> {
    /// The next job if one is there: never waits. Without one, the worker counts as idle from now on.
    pub fn try_pop(&mut self) -> Option<J> {
        match self.take(lock(&self.queue.inner)) {
            Ok(job) => Some(job),
            Err(inner) => {
                drop(self.count_as_idle(inner));
                None
            }
        }
    }

    /// Waits for the next job; `None` when the queue is closed and empty.
    pub fn pop(&mut self) -> Option<J> {
        let queue = self.queue;
        let mut inner = match self.take(lock(&queue.inner)) {
            Ok(job) => return Some(job),
            Err(inner) => self.count_as_idle(inner),
        };
        while !inner.closed {
            if !inner.spinning {
                inner.spinning = true;
                drop(inner);
                park::spin(|| (queue.ready.load(Ordering::Relaxed) != 0).then_some(()));
                inner = lock(&queue.inner);
                inner.spinning = false;
                inner = match self.take(inner) {
                    Ok(job) => return Some(job),
                    Err(inner) => inner,
                };
                if inner.closed {
                    break;
                }
            }
            inner.sleeping += 1;
            let seen = queue.word.load(Ordering::Relaxed);
            drop(inner);
            queue.word.wait(seen, None);
            inner = lock(&queue.inner);
            inner.sleeping -= 1;
            inner.waking = false;
            inner = match self.take(inner) {
                Ok(job) => return Some(job),
                Err(inner) => inner,
            };
        }
        None
    }

    fn count_as_idle<'g>(&mut self, mut inner: MutexGuard<'g, Inner<J>>) -> MutexGuard<'g, Inner<J>> {
        if !self.waiting {
            self.waiting = true;
            inner.idle += 1;
        }
        inner
    }

    /// Takes a job and passes the wake-up on, or gives the lock back.
    fn take<'g>(&mut self, mut inner: MutexGuard<'g, Inner<J>>) -> Result<J, MutexGuard<'g, Inner<J>>> {
        let Some(job) = inner.jobs.pop_front() else {
            return Err(inner);
        };
        if self.waiting {
            self.waiting = false;
            inner.idle -= 1;
        }
        self.queue.update_ready(&inner);
        let room = inner.waiting_for_room > 0;
        if room {
            self.queue.room.fetch_add(1, Ordering::Relaxed);
        }
        self.queue.wake_for_rest(inner);
        if room {
            self.queue.room.wake_one();
        }
        Ok(job)
    }
}

impl<J> Drop for Worker<'_, J> {
    fn drop(&mut self) {
        let mut inner = lock(&self.queue.inner);
        if self.waiting {
            inner.idle -= 1;
        }
        self.queue.leave(inner);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_due_only_when_more_jobs_than_idle_workers_wait() {
        let queue = Queue::new(2, usize::MAX);
        assert!(queue.push(1).expect("open"));
        let mut worker = queue.worker();
        assert_eq!(worker.pop(), Some(1));
        assert!(queue.push(2).expect("open"), "the only worker is busy");
        assert!(!queue.push(3).expect("open"), "two is the most");
        assert_eq!((queue.threads(), queue.idle(), queue.len()), (2, 1, 2));
        assert!(queue.not_started());
        assert_eq!((queue.threads(), queue.idle()), (1, 0));
    }

    #[test]
    fn a_full_queue_gives_the_job_back() {
        let queue = Queue::new(1, 1);
        assert!(queue.push("first").is_ok());
        assert!(matches!(queue.push("second"), Err(Refused::Full("second"))));
        queue.close();
        assert!(matches!(queue.push("third"), Err(Refused::Closed("third"))));
    }

    #[test]
    fn a_closed_queue_is_run_to_its_end() {
        let queue = Queue::new(1, usize::MAX);
        assert!(queue.push(1).is_ok() && queue.push(2).is_ok());
        queue.close();
        let mut worker = queue.worker();
        assert_eq!(
            (worker.pop(), worker.pop(), worker.pop()),
            (Some(1), Some(2), None)
        );
        drop(worker);
        assert_eq!((queue.threads(), queue.idle()), (0, 0));
    }

    #[test]
    fn many_submitters_and_workers_lose_no_job() {
        const JOBS: usize = 20_000;
        let queue = Queue::new(4, 64);
        let sum = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            let submitters: Vec<_> = (0..3)
                .map(|submitter| {
                    let (queue, sum) = (&queue, &sum);
                    scope.spawn(move || {
                        for number in (submitter..JOBS).step_by(3) {
                            let mut job = number;
                            let start = loop {
                                match queue.push(job) {
                                    Ok(start) => break start,
                                    Err(Refused::Full(back)) => job = back,
                                    Err(Refused::Closed(_)) => panic!("closed too early"),
                                }
                                queue.wait_for_room(None);
                            };
                            if start {
                                scope.spawn(move || {
                                    let mut worker = queue.worker();
                                    while let Some(job) = worker.pop() {
                                        sum.fetch_add(job, Ordering::Relaxed);
                                    }
                                });
                            }
                        }
                    })
                })
                .collect();
            for submitter in submitters {
                submitter.join().expect("submitter");
            }
            queue.close();
        });
        assert_eq!(sum.into_inner(), JOBS * (JOBS - 1) / 2);
    }
}

#[cfg(all(test, loom))]
mod models {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;

    fn run(queue: &Queue<usize>) -> usize {
        let mut worker = queue.worker();
        let mut sum = 0;
        while let Some(job) = worker.pop() {
            sum += job;
        }
        sum
    }

    /// Workers wait before the jobs come: every wake-up has to be passed on for the model to end.
    fn no_job_is_lost(workers: usize, jobs: usize) {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(move || {
            let queue = Arc::new(Queue::new(workers, usize::MAX));
            {
                let mut inner = lock(&queue.inner);
                inner.threads = workers;
                inner.idle = workers;
            }
            let threads: Vec<_> = (0..workers)
                .map(|_| {
                    let queue = queue.clone();
                    thread::spawn(move || run(&queue))
                })
                .collect();
            for job in 1..=jobs {
                assert!(!queue.push(job).expect("open"));
            }
            queue.close();
            let sum: usize = threads
                .into_iter()
                .map(|thread| thread.join().expect("worker"))
                .sum();
            assert_eq!(sum, jobs * (jobs + 1) / 2);
        });
    }

    #[test]
    fn one_worker_loses_no_job() {
        no_job_is_lost(1, 3);
    }

    #[test]
    fn two_workers_lose_no_job() {
        no_job_is_lost(2, 2);
    }

    #[test]
    fn who_waits_for_the_workers_sees_the_last_one_leave() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(|| {
            let queue = Arc::new(Queue::new(1, usize::MAX));
            assert!(queue.push(1).expect("open"));
            let other = queue.clone();
            let worker = thread::spawn(move || run(&other));
            queue.close();
            assert_eq!(queue.wait_for_workers(None), Wake::Woken);
            assert_eq!((queue.threads(), queue.len()), (0, 0));
            assert_eq!(worker.join().expect("worker"), 1);
        });
    }

    #[test]
    fn a_submitter_that_waits_for_room_gets_it() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(|| {
            let queue = Arc::new(Queue::new(1, 1));
            assert!(queue.push(1).expect("open"));
            let other = queue.clone();
            let worker = thread::spawn(move || run(&other));
            let mut job = 2;
            while let Err(refused) = queue.push(job) {
                let Refused::Full(back) = refused else {
                    panic!("closed")
                };
                job = back;
                queue.wait_for_room(None);
            }
            queue.close();
            assert_eq!(worker.join().expect("worker"), 3);
        });
    }
}
