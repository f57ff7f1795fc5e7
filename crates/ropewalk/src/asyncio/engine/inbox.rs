//! How other threads reach a loop: mail, and a bell that is rung only when the loop sleeps.
//!
//! # Protocol
//!
//! | thread | does | then |
//! |---|---|---|
//! | sender | puts the mail under the lock, sets `news` | if `asleep` was set, clears it and owes a ring |
//! | loop | sets `asleep` | sleeps only if `news` is clear |
//! | loop, awake | clears `asleep` | clears `news`, then takes the mail under the lock |
//!
//! # Why no wake-up is lost
//!
//! Sender: store `news` (A), swap `asleep` (B). Loop: swap `asleep` (C), read `news` (D). Every access of `asleep` is a
//! swap that acquires and releases, so they have one order in which each sees the one before. If C comes before B, a
//! sender finds `asleep` set, the first one that does rings. If B comes before C, C has acquired what B released, so D
//! sees A, and the loop does not sleep. A plain store to `asleep` anywhere would cut that chain.
//!
//! `news` is cleared before the mail is taken: a sender that comes between the two sets it again, which costs one idle
//! turn; cleared after, it would hide that sender's mail. The mail itself is handed over by the lock.
//!
//! Whoever clears `asleep` owes the ring, so many senders ring once. A ring that arrives after the loop woke by
//! itself costs one idle turn.

use crate::sync::atomic::{
    AtomicBool,
    Ordering::{AcqRel, Acquire, Release},
};
use crate::sync::{Mutex, lock};

/// Mail from other threads to one loop.
pub(super) struct Inbox<M> {
    /// None once the loop is gone.
    mail: Mutex<Option<Vec<M>>>,
    news: AtomicBool,
    asleep: AtomicBool,
}

impl<M> Default for Inbox<M> {
    fn default() -> Self {
        Self::new()
    }
}

impl<M> Inbox<M> {
    /// Makes an empty inbox of a loop that is awake.
    pub(super) fn new() -> Self {
        Self {
            mail: Mutex::new(Some(Vec::new())),
            news: AtomicBool::new(false),
            asleep: AtomicBool::new(false),
        }
    }

    /// Any thread: puts mail in. `Ok(true)`: the caller owes a ring.
    ///
    /// # Errors
    /// Gives the mail back when the loop is gone.
    pub(super) fn send(&self, mail: M) -> Result<bool, M> {
        match lock(&self.mail).as_mut() {
            Some(waiting) => waiting.push(mail),
            None => return Err(mail),
        }
        Ok(self.rouse())
    }

    /// Any thread: makes the loop look again. True: the caller owes a ring.
    pub(super) fn rouse(&self) -> bool {
        self.news.store(true, Release); // A, pairs with the acquire loads of `news`
        self.asleep.swap(false, AcqRel) // B
    }

    /// The loop: whether there is news to look at.
    #[inline]
    pub(super) fn has_mail(&self) -> bool {
        self.news.load(Acquire)
    }

    /// The loop: announces that it will sleep. False: there is news, and it must not.
    pub(super) fn fall_asleep(&self) -> bool {
        self.asleep.swap(true, AcqRel); // C
        let news = self.has_mail(); // D
        if news {
            self.wake_up();
        }
        !news
    }

    /// The loop: is awake again, rung or not.
    pub(super) fn wake_up(&self) {
        self.asleep.swap(false, AcqRel);
    }

    /// The loop: takes the mail, oldest first. `receive` runs outside the lock.
    pub(super) fn drain(&self, receive: impl FnMut(M)) {
        // An exchange: if a sender sets `news` meanwhile, this either reads that (and its mail is there) or comes first.
        if self.has_mail() && self.news.swap(false, Acquire) {
            let mail = lock(&self.mail).as_mut().map(std::mem::take);
            mail.into_iter().flatten().for_each(receive);
        }
    }

    /// The loop: refuses mail from now on and gives back what is there.
    pub(super) fn close(&self) -> Vec<M> {
        lock(&self.mail).take().unwrap_or_default()
    }
}

#[cfg(all(test, loom))]
mod loom_models {
    use super::*;
    use loom::sync::{Arc, Condvar};

    /// The eventfd of the model: a ring stays until it is heard.
    struct Bell(Mutex<bool>, Condvar);

    impl Bell {
        fn ring(&self) {
            *lock(&self.0) = true;
            self.1.notify_one();
        }

        fn sleep(&self) {
            let mut rung = lock(&self.0);
            while !*rung {
                rung = self.1.wait(rung).expect("no panic");
            }
            *rung = false;
        }
    }

    fn model(senders: usize, mails: usize) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(3); // without a bound three threads take minutes
        builder.check(move || {
            let shared = Arc::new((Inbox::new(), Bell(Mutex::new(false), Condvar::new())));
            let threads: Vec<_> = (0..senders)
                .map(|_| {
                    let shared = shared.clone();
                    loom::thread::spawn(move || {
                        for mail in 0..mails {
                            if shared.0.send(mail).expect("the loop is there") {
                                shared.1.ring();
                            }
                        }
                    })
                })
                .collect();
            let (inbox, bell) = &*shared;
            let mut received = 0;
            while received < senders * mails {
                // A lost wake-up is a deadlock here, which loom reports.
                if inbox.fall_asleep() {
                    bell.sleep();
                    inbox.wake_up();
                }
                inbox.drain(|_| received += 1);
            }
            threads
                .into_iter()
                .for_each(|thread| thread.join().expect("no panic"));
        });
    }

    #[test]
    fn no_mail_is_lost_and_no_loop_sleeps_on_its_mail() {
        model(1, 2);
    }

    #[test]
    fn two_senders_wake_one_loop() {
        model(2, 1);
    }

    #[test]
    fn mail_is_received_given_back_or_refused_when_the_loop_goes() {
        loom::model(|| {
            let inbox = Arc::new(Inbox::new());
            let sender = {
                let inbox = inbox.clone();
                loom::thread::spawn(move || inbox.send(7).is_err() as usize)
            };
            let mut seen = 0;
            inbox.drain(|_| seen += 1);
            seen += inbox.close().len();
            assert_eq!(seen + sender.join().expect("no panic"), 1);
        });
    }
}
