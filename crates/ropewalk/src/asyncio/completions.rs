//! [`Completions`]: which of several tasks are over, in the order in which that happened.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Poll, Waker};

use super::task::{AnyTask, Watch};

/// The numbers of tasks that are over and that nobody has seen yet. One waits.
#[derive(Default)]
pub(super) struct Completions {
    numbers: RefCell<VecDeque<usize>>,
    waiter: RefCell<Option<Waker>>,
}

impl Watch for Completions {
    fn done(&self, number: usize) {
        self.numbers.borrow_mut().push_back(number);
        let waiter = self.waiter.take();
        if let Some(waiter) = waiter {
            waiter.wake();
        }
    }
}

impl Completions {
    pub(super) fn try_next(&self) -> Option<usize> {
        self.numbers.borrow_mut().pop_front()
    }

    pub(super) fn set_waiter(&self, waker: &Waker) {
        let old = self.waiter.replace(Some(waker.clone()));
        drop(old); // outside the borrow
    }

    /// The next number. Not cancelled.
    pub(super) async fn next(&self) -> usize {
        std::future::poll_fn(|cx| match self.try_next() {
            Some(number) => Poll::Ready(number),
            None => {
                self.set_waiter(cx.waker());
                Poll::Pending
            }
        })
        .await
    }
}

/// Tasks that are watched, by their numbers, until this is dropped.
pub(super) struct Watched {
    pub(super) tasks: Vec<AnyTask>,
    pub(super) completions: Rc<Completions>,
}

impl Watched {
    pub(super) fn new(tasks: impl IntoIterator<Item = AnyTask>) -> Self {
        let this = Self {
            tasks: tasks.into_iter().collect(),
            completions: Rc::default(),
        };
        for (number, task) in this.tasks.iter().enumerate() {
            task.watch(this.completions.clone(), number);
        }
        this
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let who: Rc<dyn Watch> = self.completions.clone();
        for task in &self.tasks {
            task.unwatch(&who);
        }
    }
}
