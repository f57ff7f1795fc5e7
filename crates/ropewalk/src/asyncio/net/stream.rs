//! What streams of all kinds have in common.

use std::fmt;
use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_io::{AsyncRead, AsyncWrite};

use crate::asyncio::source::{Io, Way};

/// A connection: [`TcpStream`](super::TcpStream) or [`UnixStream`](super::UnixStream).
///
/// Implements the traits of `futures-io`, also by reference, so that libraries for any runtime work on it. These are not
/// await points of ours: wrap what is built on them by [`cancellable`](crate::asyncio::cancellable).
pub struct Stream<S: AsFd>(pub(super) Io<S>);

/// A socket that can read and write by reference and be shut down.
pub(super) trait Socket: AsFd {
    fn shut(&self, how: Shutdown) -> io::Result<()>;

    fn peer(&self) -> io::Result<SocketAddr>;
}

#[allow(private_bounds)]
impl<S: Socket> Stream<S>
where
    for<'a> &'a S: Read + Write,
{
    /// Reads what is there, up to the length of `buffer`; 0 at the end of the stream.
    ///
    /// # Errors
    /// The system's; the cancellation of the task.
    pub async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.wait(Way::Read, |mut socket| socket.read(buffer)).await
    }

    /// Fills `buffer`.
    ///
    /// # Errors
    /// As [`read`](Stream::read), after which an unknown part of the buffer is filled; `UnexpectedEof` if the stream ends before.
    pub async fn read_exact(&self, mut buffer: &mut [u8]) -> io::Result<()> {
        while !buffer.is_empty() {
            match self.read(buffer).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => buffer = &mut buffer[count..],
            }
        }
        Ok(())
    }

    /// Writes as much of `bytes` as there is room for, and waits until there is some.
    ///
    /// # Errors
    /// The system's (a peer that is gone: `BrokenPipe` or `ConnectionReset`); the cancellation of the task.
    pub async fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.0.wait(Way::Write, |mut socket| socket.write(bytes)).await
    }

    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// As [`write`](Stream::write), after which an unknown part is written.
    pub async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let count = self.write(bytes).await?;
            bytes = &bytes[count..];
        }
        Ok(())
    }

    /// Ends the stream in one direction or both; the peer reads its end.
    ///
    /// # Errors
    /// The system's.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.0.get().shut(how)
    }
}

impl<S: Socket> AsyncRead for &Stream<S>
where
    for<'a> &'a S: Read,
{
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        self.0.poll(Way::Read, cx, |mut socket| socket.read(buffer))
    }
}

impl<S: Socket> AsyncWrite for &Stream<S>
where
    for<'a> &'a S: Write,
{
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.poll(Way::Write, cx, |mut socket| socket.write(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0
            .poll(Way::Write, cx, |mut socket| socket.write_vectored(parts))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.0.get().shut(Shutdown::Write))
    }
}

impl<S: Socket> AsyncRead for Stream<S>
where
    for<'a> &'a S: Read,
{
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut &*self).poll_read(cx, buffer)
    }
}

impl<S: Socket> AsyncWrite for Stream<S>
where
    for<'a> &'a S: Write,
{
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut &*self).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut &*self).poll_write_vectored(cx, parts)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut &*self).poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut &*self).poll_close(cx)
    }
}

impl<S: AsFd> Unpin for Stream<S> {}

impl<S: AsFd> AsFd for Stream<S> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.get().as_fd()
    }
}

impl<S: AsFd + fmt::Debug> fmt::Debug for Stream<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.get().fmt(f)
    }
}

/// How many connections may wait to be taken; the standard library's 128 make thousands of clients that come at once wait for seconds.
/// The system may have a lower bound.
pub(super) const BACKLOG: i32 = 4096;

/// A socket that takes connections: [`TcpListener`](super::TcpListener) or [`UnixListener`](super::UnixListener).
pub struct Listener<L: AsFd>(pub(super) Io<L>);

impl<L: AsFd> AsFd for Listener<L> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.get().as_fd()
    }
}

impl<L: AsFd + fmt::Debug> fmt::Debug for Listener<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.get().fmt(f)
    }
}
