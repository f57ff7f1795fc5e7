use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::rc::Rc;
use std::task::{Context, Waker};

use super::transport::Transport;
use crate::asyncio::error::{Error, Result};
use crate::asyncio::runner::create_task;
use crate::asyncio::waiters::Waiters;
use crate::asyncio::{cancellable, get_running_loop};

/// Above so many bytes `drain` waits, until there are no more than `LOW`; Python's numbers.
const HIGH: usize = 64 * 1024;
const LOW: usize = HIGH / 4;

/// The writing end of a connection or pipe, with a buffer (Python: `asyncio.StreamWriter`).
///
/// What is written goes out as fast as the peer takes it; [`drain`](StreamWriter::drain) keeps a fast writer from filling the
/// memory. Dropped, it closes the connection once everything is out. What is not out when the loop ends is lost: await
/// [`wait_closed`](StreamWriter::wait_closed) before.
///
/// ```
/// use ropewalk::asyncio::{self, net};
///
/// asyncio::run(async {
///     let (here, there) = net::UnixStream::pair()?;
///     let (mut reader, _writer) = net::split(here);
///     let (_, mut writer) = net::split(there);
///     for number in 0..3 {
///         writer.write(format!("flag {number}\n").as_bytes());
///         writer.drain().await?;
///     }
///     writer.write_eof();
///     writer.wait_closed().await?;
///     assert_eq!(reader.read_to_end().await?, b"flag 0\nflag 1\nflag 2\n");
///     Ok(())
/// })
/// # .unwrap();
/// ```
pub struct StreamWriter(Rc<Shared>);

struct Shared {
    transport: Rc<dyn Transport>,
    /// What is not with the system yet.
    buffer: RefCell<VecDeque<u8>>,
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
            return shared.fail(io::Error::new(io::ErrorKind::BrokenPipe, "the writer is closed"));
        }
        let mut sent = 0;
        if !shared.flushing.get() {
            match shared.transport.try_write(bytes) {
                Ok(count) => sent = count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return shared.fail(error),
            }
        }
        if sent < bytes.len() {
            shared.buffer.borrow_mut().extend(&bytes[sent..]);
            shared.start();
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

    /// Waits until everything is out, and the end with it if the stream was ended or closed.
    ///
    /// # Errors
    /// As [`drain`](StreamWriter::drain).
    pub async fn wait_closed(&mut self) -> Result<()> {
        self.0.wait_until(0).await?;
        self.0.outcome()
    }

    /// The address of the other end (Python: `get_extra_info("peername")`).
    ///
    /// # Errors
    /// The system's: the connection is gone. `Unsupported` if this is no TCP connection.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.0.transport.peer_addr()
    }
}

impl Shared {
    fn fail(&self, error: io::Error) {
        *self.failure.borrow_mut() = Some(error.into());
    }

    /// Has a task write the buffer out.
    fn start(self: &Rc<Self>) {
        if !self.flushing.replace(true) {
            let shared = self.clone();
            let task = create_task(async move {
                let _flushing = Flushing(&shared);
                if let Err(error) = shared.flush().await {
                    shared.fail(error);
                }
                Ok(())
            });
            task.hide(); // it writes what tasks that are cancelled have to say
        }
    }

    async fn flush(&self) -> io::Result<()> {
        loop {
            while !self.buffer.borrow().is_empty() {
                let write = std::future::poll_fn(|cx| {
                    self.transport.poll_write(cx, self.buffer.borrow().as_slices().0)
                });
                let count = match write.await? {
                    0 => return Err(io::ErrorKind::WriteZero.into()), // or it would be tried for ever
                    count => count,
                };
                self.buffer.borrow_mut().drain(..count);
                if self.buffer.borrow().len() <= LOW {
                    self.drained.tell_all(true);
                }
            }
            std::future::poll_fn(|cx| self.transport.poll_flush(cx)).await?;
            if !self.buffer.borrow().is_empty() {
                continue; // written meanwhile
            }
            let Some(how) = self.ending.get() else {
                return Ok(());
            };
            // A connection that is gone is as closed as can be.
            let _ = std::future::poll_fn(|cx| self.transport.poll_shut(cx, how)).await;
            if self.ending.get() == Some(how) {
                return Ok(());
            }
        }
    }

    async fn wait_until(&self, left: usize) -> Result<()> {
        while self.flushing.get() && (left == 0 || self.buffer.borrow().len() > left) {
            cancellable(self.drained.wait(|_| ())).await?;
        }
        Ok(())
    }

    fn outcome(&self) -> Result<()> {
        self.failure.borrow().clone().map_or(Ok(()), Err)
    }

    fn end(self: &Rc<Self>, how: Shutdown) {
        if self.ending.get() == Some(Shutdown::Both) {
            return;
        }
        self.ending.set(Some(how));
        if self.flushing.get() {
            return; // it ends it
        }
        let mut cx = Context::from_waker(Waker::noop());
        if self.transport.poll_shut(&mut cx, how).is_pending()
            && get_running_loop().is_ok_and(|event_loop| event_loop.is_running())
        {
            self.start();
        }
    }
}

/// The task that writes the buffer out, until it ends, by a panic of the stream or with its loop, too.
struct Flushing<'a>(&'a Rc<Shared>);

impl Drop for Flushing<'_> {
    fn drop(&mut self) {
        let shared = self.0;
        shared.flushing.set(false);
        if shared.failure.borrow().is_none() && !shared.buffer.borrow().is_empty() {
            // What would be written now would come before what is left.
            let why = "nobody writes the buffer out any more";
            shared.fail(io::Error::new(io::ErrorKind::ConnectionAborted, why));
        }
        if let Some(how) = shared.ending.get() {
            let mut cx = Context::from_waker(Waker::noop());
            let _ = shared.transport.poll_shut(&mut cx, how);
        }
        shared.drained.tell_all(true);
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
