//! [`Waiters`]: those who wait for one thing, in the order of their coming.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// Those who wait. Who has been told is not among them any more.
#[derive(Default)]
pub(super) struct Waiters {
    /// By numbers that count up: who leaves early is found, and the order kept.
    queue: RefCell<BTreeMap<u64, Entry>>,
    next: Cell<u64>,
}

struct Entry {
    waker: Option<Waker>,
    told: Rc<Cell<Option<bool>>>,
}

impl Waiters {
    pub(super) fn len(&self) -> usize {
        self.queue.borrow().len()
    }

    /// Tells the one who came first; false if there is none.
    pub(super) fn tell_first(&self, what: bool) -> bool {
        let first = self.queue.borrow_mut().pop_first();
        first.map(|(_, entry)| entry.tell(what)).is_some()
    }

    /// Tells all who are here now.
    pub(super) fn tell_all(&self, what: bool) {
        for entry in self.queue.take().into_values() {
            entry.tell(what);
        }
    }

    /// Comes in last. `pass_on` gets what was told to a future that is dropped without having been polled since: a
    /// cancellation came before.
    pub(super) fn wait<F: FnMut(bool)>(&self, pass_on: F) -> Waiting<'_, F> {
        let number = self.next.replace(self.next.get() + 1);
        let told = Rc::default();
        let entry = Entry {
            waker: None,
            told: Rc::clone(&told),
        };
        self.queue.borrow_mut().insert(number, entry);
        Waiting {
            waiters: self,
            number,
            told,
            pass_on,
        }
    }
}

impl Entry {
    fn tell(self, what: bool) {
        self.told.set(Some(what));
        if let Some(waker) = self.waker {
            waker.wake();
        }
    }
}

/// A wait that ends with what is told. Not cancelled by itself.
pub(super) struct Waiting<'a, F: FnMut(bool)> {
    waiters: &'a Waiters,
    number: u64,
    told: Rc<Cell<Option<bool>>>,
    pass_on: F,
}

impl<F: FnMut(bool) + Unpin> Future for Waiting<'_, F> {
    type Output = bool;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<bool> {
        if let Some(what) = self.told.take() {
            return Poll::Ready(what);
        }
        let old = match self.waiters.queue.borrow_mut().get_mut(&self.number) {
            Some(entry) => entry.waker.replace(cx.waker().clone()),
            None => None,
        };
        drop(old); // outside the borrow
        Poll::Pending
    }
}

impl<F: FnMut(bool)> Drop for Waiting<'_, F> {
    fn drop(&mut self) {
        match self.told.take() {
            Some(what) => (self.pass_on)(what),
            None => {
                let entry = self.waiters.queue.borrow_mut().remove(&self.number);
                drop(entry); // outside the borrow
            }
        }
    }
}
