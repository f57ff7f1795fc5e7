//! How a task's memory is counted, so that in its loop's thread that costs no atomic exchange.
//!
//! # Who counts where
//!
//! | reference | lives | counted in |
//! |---|---|---|
//! | handle: the loop's own, `Task`, `AnyTask` | in the loop's thread | `Here::handles` |
//! | waker, born or dropped in the loop's thread | anywhere | `Here::wakers` |
//! | waker, born or dropped elsewhere | anywhere | `Elsewhere` |
//!
//! A waker may be born in one place and dropped in the other, so neither of its counts means anything alone, and both may be
//! negative; their sum is the number of wakers. The last handle makes the decision, since none can come after it (the
//! loop keeps one until the task is done): without wakers the memory is free, and otherwise `Here::wakers` goes over
//! into `Elsewhere`, which from then on is an ordinary atomic count. Until then `Elsewhere` stands `BIAS` too high, so that no
//! thread finds the end of it.
//!
//! # Why the last handle may trust the sum
//!
//! It reads `Elsewhere` by a plain load, which could be old. Say that it finds the sum zero though a waker W lives. Every waker
//! that died in the loop's thread came there after whatever was done with it elsewhere, so the load sees that; of one that died
//! elsewhere it may miss the death, or birth and death, which makes the sum no smaller. So each waker adds zero or more,
//! and, the sum being zero, each adds zero: W's birth was missed, then, and was elsewhere. W was cloned from a waker P, before P
//! died. If the load sees P's death, it sees W's birth, which is earlier in the order of the one atomic (or of the
//! arrival of P in the loop's thread). If not, P adds zero only by a birth that was missed as well, and so on up to the first of
//! them all, which was born in the loop's thread and would add one. So there is no W.
//!
//! The load acquires and each decrement releases: what a thread did with the memory happens before it is given back.

use std::cell::Cell;

use crate::sync::atomic::{
    AtomicIsize,
    Ordering::{AcqRel, Acquire, Relaxed},
};

/// Far above any count of wakers, and far from overflow with one.
const BIAS: isize = isize::MAX / 2;

/// What only the loop's thread counts.
///
/// Small, since every task has it; who forgets so many references that a count overflows aborts the process, as with `Rc`.
pub(super) struct Here {
    handles: Cell<u32>,
    wakers: Cell<i32>,
}

/// What any thread counts.
pub(super) struct Elsewhere(AtomicIsize);

/// Whether that was the last reference: the caller gives the memory back.
#[must_use = "the memory leaks otherwise"]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Last(pub(super) bool);

impl Here {
    /// The counts of a task that has so many handles and no waker.
    pub(super) fn new(handles: u32) -> (Self, Elsewhere) {
        let here = Self {
            handles: Cell::new(handles),
            wakers: Cell::new(0),
        };
        (here, Elsewhere(AtomicIsize::new(BIAS)))
    }

    #[inline]
    pub(super) fn add_handle(&self) {
        match self.handles.get().checked_add(1) {
            Some(handles) => self.handles.set(handles),
            None => std::process::abort(),
        }
    }

    #[inline]
    pub(super) fn drop_handle(&self, elsewhere: &Elsewhere) -> Last {
        let left = self.handles.get() - 1;
        self.handles.set(left);
        if left > 0 {
            return Last(false);
        }
        let wakers = self.wakers.get() as isize - BIAS;
        // Acquire: pairs with the decrements in `Elsewhere::drop_waker`.
        if elsewhere.0.load(Acquire) + wakers == 0 {
            return Last(true);
        }
        // AcqRel: releases what this thread did with the memory to whoever is last, and acquires what the others did, if
        // this is.
        Last(elsewhere.0.fetch_add(wakers, AcqRel) + wakers == 0)
    }

    #[inline]
    pub(super) fn add_waker(&self, elsewhere: &Elsewhere) {
        if self.handles.get() == 0 {
            return elsewhere.add_waker();
        }
        match self.wakers.get().checked_add(1) {
            Some(wakers) => self.wakers.set(wakers),
            None => std::process::abort(),
        }
    }

    #[inline]
    pub(super) fn drop_waker(&self, elsewhere: &Elsewhere) -> Last {
        if self.handles.get() == 0 {
            return elsewhere.drop_waker();
        }
        match self.wakers.get().checked_sub(1) {
            Some(wakers) => self.wakers.set(wakers),
            None => std::process::abort(),
        }
        Last(false)
    }
}

impl Elsewhere {
    pub(super) fn add_waker(&self) {
        // Relaxed: who clones holds one, so the memory cannot go meanwhile.
        self.0.fetch_add(1, Relaxed);
    }

    pub(super) fn drop_waker(&self) -> Last {
        // AcqRel: releases what was done with the memory, and acquires what all the others did, if this is the last.
        Last(self.0.fetch_sub(1, AcqRel) == 1)
    }
}

#[cfg(all(test, loom))]
mod loom_models {
    use super::*;
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicUsize;
    use loom::thread;

    /// A task: `here` is touched in the model's first thread alone, `memory` by all, and written by who frees it.
    struct Task {
        here: Here,
        elsewhere: Elsewhere,
        memory: UnsafeCell<u32>,
        freed: AtomicUsize,
    }

    // SAFETY: as the field says.
    unsafe impl Send for Task {}
    // SAFETY: as the field says.
    unsafe impl Sync for Task {}

    impl Task {
        fn new() -> Arc<Self> {
            let (here, elsewhere) = Here::new(1);
            Arc::new(Self {
                here,
                elsewhere,
                memory: UnsafeCell::new(0),
                freed: AtomicUsize::new(0),
            })
        }

        /// Any thread that has a reference: looks at the memory. Loom reports it if that may be freed meanwhile.
        fn look(&self) {
            // SAFETY: a read; loom tracks the other accesses.
            self.memory.with(|memory| assert_eq!(unsafe { *memory }, 0));
        }

        fn free(&self, last: Last) {
            if last.0 {
                // SAFETY: nobody else has a reference, which is what the model checks.
                self.memory.with_mut(|memory| unsafe { *memory += 1 });
                self.freed.fetch_add(1, Relaxed);
            }
        }
    }

    fn check(wakers: usize, program: fn(&Task), elsewhere: fn(&Task)) {
        loom::model(move || {
            let task = Task::new();
            let threads: Vec<_> = (0..wakers)
                .map(|_| {
                    task.here.add_waker(&task.elsewhere);
                    let task = task.clone();
                    thread::spawn(move || elsewhere(&task))
                })
                .collect();
            program(&task);
            task.look();
            task.free(task.here.drop_handle(&task.elsewhere));
            threads
                .into_iter()
                .for_each(|thread| thread.join().expect("no panic"));
            assert_eq!(task.freed.load(Relaxed), 1);
        });
    }

    fn clone_and_drop_both(task: &Task) {
        task.elsewhere.add_waker();
        task.look();
        task.free(task.elsewhere.drop_waker());
        task.look();
        task.free(task.elsewhere.drop_waker());
    }

    #[test]
    fn wakers_that_went_to_other_threads_free_the_memory_once() {
        check(
            2,
            |_| (),
            |task| {
                task.look();
                task.free(task.elsewhere.drop_waker());
            },
        );
    }

    #[test]
    fn clones_made_elsewhere_free_the_memory_once() {
        check(1, |_| (), clone_and_drop_both);
    }

    #[test]
    fn a_clone_made_here_while_others_count_elsewhere_is_no_end() {
        let here_too = |task: &Task| {
            task.here.add_handle();
            task.here.add_waker(&task.elsewhere);
            task.free(task.here.drop_handle(&task.elsewhere));
            task.free(task.here.drop_waker(&task.elsewhere));
        };
        check(1, here_too, clone_and_drop_both);
    }

    #[test]
    fn a_waker_kept_here_after_the_last_handle_is_counted_with_the_others() {
        loom::model(|| {
            let task = Task::new();
            task.here.add_waker(&task.elsewhere);
            task.here.add_waker(&task.elsewhere);
            let other = task.clone();
            let thread = thread::spawn(move || clone_and_drop_both(&other));
            task.free(task.here.drop_handle(&task.elsewhere));
            task.here.add_waker(&task.elsewhere);
            task.look();
            task.free(task.here.drop_waker(&task.elsewhere));
            task.look();
            task.free(task.here.drop_waker(&task.elsewhere));
            thread.join().expect("no panic");
            assert_eq!(task.freed.load(Relaxed), 1);
        });
    }
}
