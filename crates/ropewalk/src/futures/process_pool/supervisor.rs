//! The thread that starts workers, notices their deaths and enforces time limits, and that receives results when
//! no thread that waits for one does so. It runs no code of the pool's user but receivers.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open};

use super::job::{Cause, Death};
use super::link::{Link, Sent};
use super::pool::Shared;
use super::segment::{is_any_kept, release_kept};
use super::state::{Over, State, Worker};
use super::wire::now;
use super::worker::KEEP;
use crate::sync::lock;

/// A pool gives up when so many workers in a row came to nothing before they were ready.
const MAX_FAILED_STARTS: u32 = 3;

/// The same for workers that something killed, which need not be their own fault.
const MAX_KILLED_STARTS: u32 = 100;

/// The epoll data of the eventfd; workers have their numbers.
const EVENTFD: u64 = u64::MAX;

pub(super) fn start(shared: Arc<Shared>) -> io::Result<()> {
    let poll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(
        &poll,
        &shared.eventfd,
        EventData::new_u64(EVENTFD),
        EventFlags::IN,
    )?;
    let supervisor = Supervisor {
        shared,
        poll,
        next: 0,
        failed_starts: 0,
        killed_starts: 0,
    };
    crate::signals::blocked(|| {
        std::thread::Builder::new()
            .name("ropewalk-supervisor".into())
            .spawn(move || supervisor.run())
    })?;
    Ok(())
}

struct Supervisor {
    shared: Arc<Shared>,
    poll: std::os::fd::OwnedFd,
    /// The number of the next worker.
    next: u32,
    failed_starts: u32,
    killed_starts: u32,
}

impl Supervisor {
    fn run(mut self) {
        loop {
            let mut over = Over::new();
            let mut state = self.shared.lock();
            state.receive(&mut over);
            let next_limit = state.enforce_time_limits(now(), &mut over);
            state.call_supervisor = false;
            let broken = state.broken.clone();
            let missing = state.missing(self.shared.config.max_workers);
            let (ended, idle) = self.close(&mut state);
            self.shared.unlock(state);
            self.shared.tell(over);
            if let Some(reason) = broken {
                self.fail_the_rest(&reason);
            }
            if ended {
                break;
            }
            for _ in 0..missing {
                if let Err(error) = self.hire() {
                    self.shared
                        .break_down(format!("cannot start a worker process: {error}"));
                    break;
                }
            }
            // With work newly sent to new workers, look again before sleeping.
            if missing > 0 || (!idle && self.shared.prepare_to_poll()) {
                continue;
            }
            self.sleep(next_limit);
        }
        release_kept();
        self.shared.ended.store(1, Ordering::Release);
        self.shared.ended.wake_all();
    }

    /// Lets workers go when there is nothing more to do: whether all are gone, and whether all are leaving.
    fn close(&self, state: &mut State) -> (bool, bool) {
        let idle = state.closing && state.pending == 0;
        if idle {
            for worker in &state.workers {
                worker.link.stop();
            }
        }
        (idle && state.workers.is_empty(), idle)
    }

    /// A pool that broke while results were received still has tasks.
    fn fail_the_rest(&self, reason: &str) {
        let left = {
            let state = self.shared.lock();
            state.pending > 0 || state.workers.iter().any(|worker| !worker.doomed)
        };
        if left {
            self.shared.break_down(reason.into());
        }
    }

    fn sleep(&mut self, next_limit: Option<Duration>) {
        // Memory that is kept for the next large message goes back when none comes.
        let next_limit = match next_limit {
            None if is_any_kept() => Some(KEEP),
            limit => limit,
        };
        let timeout = next_limit.and_then(|limit| {
            // Rounded up: a wake-up before the time would find nothing.
            rustix::event::Timespec::try_from(limit + Duration::from_micros(50)).ok()
        });
        let mut events = Vec::with_capacity(16);
        match epoll::wait(
            &self.poll,
            rustix::buffer::spare_capacity(&mut events),
            timeout.as_ref(),
        ) {
            Ok(0) => drop(release_kept()),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => self
                .shared
                .break_down(format!("the supervisor cannot wait: {error}")),
        }
        for event in events {
            match event.data.u64() {
                EVENTFD => {
                    // Empty if another round has read it.
                    let _ = rustix::io::read(&self.shared.eventfd, &mut [0u8; 8]);
                }
                number => self.bury(number as u32),
            }
        }
    }

    /// Starts a worker.
    fn hire(&mut self) -> io::Result<()> {
        let (mut link, theirs, segment) = Link::new()?;
        let own = Pid::from_raw(std::process::id() as i32).ok_or(io::ErrorKind::NotFound)?;
        let parent = pidfd_open(own, PidfdFlags::empty())?;
        link.greet(
            &self.shared.settings().to_bytes(),
            &[
                segment.as_fd(),
                self.shared.segment.as_fd(),
                self.shared.eventfd.as_fd(),
                parent.as_fd(),
            ],
        )?;
        if let Ok(Sent::Full) | Err(_) = link.send_setup(&mut lock(&self.shared.setup)) {
            return Err(io::Error::other("the setup cannot be sent"));
        }
        // A process group of its own: the terminal's Ctrl-C is for the program to deal with, and through it for the
        // workers. The link as standard input: it is the one descriptor that a child gets without a moment in which
        // another child, started by another thread, could get it too.
        let mut command = (self.shared.config.command)();
        command.stdin(Stdio::from(theirs)).process_group(0);
        let pid = command.spawn()?.id();
        let Some(process) = Pid::from_raw(pid as i32) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let pidfd = pidfd_open(process, PidfdFlags::empty())?;
        let number = self.next;
        self.next += 1;
        epoll::add(
            &self.poll,
            &pidfd,
            EventData::new_u64(number.into()),
            EventFlags::IN,
        )?;
        let mut state = self.shared.lock();
        state.workers.push(Worker::new(number, pid, pidfd, link));
        Ok(())
    }

    /// A worker's process has ended.
    fn bury(&mut self, number: u32) {
        let mut over = Over::new();
        let mut state = self.shared.lock();
        let Some(worker) = state.workers.iter().find(|worker| worker.number == number) else {
            return;
        };
        let death = Death {
            pid: worker.pid,
            cause: reap(worker.pidfd.as_fd()),
        };
        let Some(worker) = state.bury(number, death, &mut over) else {
            return;
        };
        let leaving = state.closing && state.pending == 0;
        if !leaving && state.broken.is_none() {
            state.statistics.restarts += 1;
        }
        let broken = state.broken.is_some();
        self.shared.unlock(state);
        let _ = epoll::delete(&self.poll, &worker.pidfd);
        self.shared.tell(over);
        if worker.ready {
            (self.failed_starts, self.killed_starts) = (0, 0);
        } else if !leaving && !broken && !worker.doomed {
            match death.cause {
                Cause::Signal(libc::SIGKILL | libc::SIGTERM) => self.killed_starts += 1,
                _ => self.failed_starts += 1,
            }
            if self.failed_starts >= MAX_FAILED_STARTS || self.killed_starts >= MAX_KILLED_STARTS {
                self.shared
                    .break_down(format!("{death} before it was ready for work"));
            }
        }
    }
}

fn reap(pidfd: std::os::fd::BorrowedFd<'_>) -> Cause {
    loop {
        match rustix::process::waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED) {
            Ok(Some(status)) => {
                return match (status.terminating_signal(), status.exit_status()) {
                    (Some(signal), _) => Cause::Signal(signal),
                    (None, Some(code)) => Cause::Exit(code),
                    (None, None) => Cause::Unknown,
                };
            }
            Err(rustix::io::Errno::INTR) => {}
            Ok(None) | Err(_) => return Cause::Unknown,
        }
    }
}
