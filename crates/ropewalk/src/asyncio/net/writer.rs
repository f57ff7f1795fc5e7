use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::net::Shutdown;
use std::rc::Rc;

use super::connection::Transport;
use crate::asyncio::cancellable;
use crate::asyncio::error::{Error, Result};
use crate::asyncio::runner::create_task;
use crate::asyncio::waiters::Waiters;

/// Above so many bytes `drain` waits, until there are no more than `LOW`; Python's numbers.
const HIGH: usize = 64 * 1024;
const LOW: usize = HIGH / 4;

/// The writing end of a connection, with a buffer (Python: `asyncio.StreamWriter`).
///
/// What is written goes out as fast as the peer takes it; [`drain`](StreamWriter::drain) keeps a fast writer from filling the memory. Dropped, it
/// closes the connection once everything is out.
pub struct StreamWriter(Rc<Shared>);

struct Shared {
    transport: Rc<dyn Transport>,
    /// What is not with the system yet.
    buffer: RefCell<Vec<u8>>,
    /// A task of ours is writing the buffer out.
    flushing: Cell<bool>,
    /// What to shut down once everything is out.
    ending: Cell<Option<Shutdown>>,
    failure: RefCell<Option<Error>>,
    /// Those who wait for the buffer to shrink.
    drained: Waiters,
}

impl StreamWriter {
    pub(super) fn new(transport: Rc<dyn Transport>) -> Self {
        Self(Rc::new(Shared {
            transport,
            buffer: RefCell::default(),
            flushing: Cell::new(false),
            ending: Cell::new(None),
            failure: RefCell::new(None),
            drained: Waiters::default(),
        }))
    }

    /// Sends `bytes`, at once or when there is room. A failure comes out of the next [`drain`](StreamWriter::drain).
    ///
    /// # Panics
    /// Outside a loop.
    pub fn write(&mut self, bytes: &[u8]) {
        let shared = &self.0;
        if shared.failure.borrow().is_some() {
            return;
        }
        if shared.ending.get().is_some() {
            let closed = io::Error::new(io::ErrorKind::BrokenPipe, "the writer is closed");
            *shared.failure.borrow_mut() = Some(closed.into());
            return;
        }
        let mut sent = 0;
        if !shared.flushing.get() {
            match shared.transport.try_write(bytes) {
                Ok(count) => sent = count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return *shared.failure.borrow_mut() = Some(error.into()),
            }
        }
        if sent < bytes.len() {
            shared.buffer.borrow_mut().extend_from_slice(&bytes[sent..]);
            if !shared.flushing.replace(true) {
                let shared = shared.clone();
                drop(create_task(async move {
                    let _flushing = Flushing(&shared);
                    shared.flush().await
                }));
            }
        }
    }

    /// Waits, if more than 64 KiB are in the buffer, until no more than 16 KiB are.
    ///
    /// # Errors
    /// What writing failed with; the cancellation of the task.
    pub async fn drain(&mut self) -> Result<()> {
        if self.0.buffer.borrow().len() > HIGH {
            self.0.wait_until(LOW).await?;
        }
        self.0.outcome()
    }

    /// Ends the stream for the peer once everything is out; what he sends can still be read.
    pub fn write_eof(&mut self) {
        self.0.end(Shutdown::Write);
    }

    /// Closes the connection once everything is out.
    pub fn close(&mut self) {
        self.0.end(Shutdown::Both);
    }

    /// Whether it was closed.
    pub fn is_closing(&self) -> bool {
        self.0.ending.get() == Some(Shutdown::Both)
    }

    /// Waits until everything is out.
    ///
    /// # Errors
    /// As [`drain`](StreamWriter::drain).
    pub async fn wait_closed(&mut self) -> Result<()> {
        self.0.wait_until(0).await?;
        self.0.outcome()
    }
}

impl Shared {
    async fn flush(&self) -> Result<()> {
        while !self.buffer.borrow().is_empty() {
            let write = std::future::poll_fn(|cx| self.transport.poll_write(cx, &self.buffer.borrow()));
            match cancellable(write).await? {
                Ok(count) => drop(self.buffer.borrow_mut().drain(..count)),
                Err(error) => {
                    *self.failure.borrow_mut() = Some(error.into());
                    return Ok(());
                }
            }
            if self.buffer.borrow().len() <= LOW {
                self.drained.tell_all(true);
            }
        }
        Ok(())
    }

    async fn wait_until(&self, left: usize) -> Result<()> {
        while self.flushing.get() && self.buffer.borrow().len() > left {
            cancellable(self.drained.wait(|_| ())).await?;
        }
        Ok(())
    }

    fn outcome(&self) -> Result<()> {
        self.failure.borrow().clone().map_or(Ok(()), Err)
    }

    fn end(&self, how: Shutdown) {
        if self.ending.get() != Some(Shutdown::Both) {
            self.ending.set(Some(how));
        }
        if !self.flushing.get() {
            // A connection that is gone is as closed as can be.
            let _ = self.transport.shut(how);
        }
    }
}

/// The task that writes the buffer out, until it ends, in whatever way.
struct Flushing<'a>(&'a Shared);

impl Drop for Flushing<'_> {
    fn drop(&mut self) {
        self.0.flushing.set(false);
        if let Some(how) = self.0.ending.get() {
            self.0.end(how);
        }
        self.0.drained.tell_all(true);
    }
}

impl Drop for StreamWriter {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for StreamWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let closing = if self.is_closing() { " closing" } else { "" };
        write!(
            f,
            "<StreamWriter {} bytes{closing}>",
            self.0.buffer.borrow().len()
        )
    }
}
