//! What readers and writers read from and write to: a [`Transport`], which [`split`] makes of any stream.

use std::any::Any;
use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use futures_io::{AsyncRead, AsyncWrite};

use super::reader::{LIMIT, StreamReader};
use super::stream::{Socket, Stream};
use super::writer::StreamWriter;
use super::{TcpStream, UnixStream};
use crate::asyncio::source::Way;

/// A stream of any kind, as reader and writer see it.
pub(super) trait Transport {
    fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>>;

    fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>>;

    /// Writes what needs no flush afterwards.
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize>;

    fn poll_flush(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shut(&self, cx: &mut Context<'_>, how: Shutdown) -> Poll<io::Result<()>>;

    fn peer_addr(&self) -> io::Result<SocketAddr> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl<S: Socket + AsFd> Transport for Stream<S>
where
    for<'a> &'a S: Read + Write,
{
    fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        self.0.poll(Way::Read, cx, |mut socket| socket.read(buffer))
    }

    fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.poll(Way::Write, cx, |mut socket| socket.write(bytes))
    }

    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.0.get().write(bytes)
    }

    fn poll_shut(&self, _: &mut Context<'_>, how: Shutdown) -> Poll<io::Result<()>> {
        Poll::Ready(self.0.get().shut(how))
    }

    fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.0.get().peer()
    }
}

/// A stream of another library.
struct Foreign<S>(RefCell<S>);

impl<S: AsyncRead + AsyncWrite + Unpin> Transport for Foreign<S> {
    fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_read(cx, buffer)
    }

    fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_write(cx, bytes)
    }

    fn try_write(&self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }

    fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_flush(cx)
    }

    fn poll_shut(&self, cx: &mut Context<'_>, _: Shutdown) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_close(cx)
    }
}

/// Makes a reader and a writer of a stream: one of this module, or one of another library, such as a TLS stream. Keep both: a
/// writer that is dropped closes the stream.
///
/// ```
/// use ropewalk::asyncio::{self, net};
///
/// asyncio::run(async {
///     let listener = net::TcpListener::bind("127.0.0.1:0".parse()?)?;
///     let port = listener.local_addr()?.port();
///     let (_reader, mut writer) = net::open_connection("127.0.0.1", port).await?;
///     writer.write(b"BR\nCN\n");
///     let (stream, _) = listener.accept().await?;
///     let (mut reader, _writer) = net::split(stream);
///     assert_eq!(reader.readline().await?, b"BR\n");
///     assert_eq!(reader.readline().await?, b"CN\n");
///     Ok(())
/// })
/// # .unwrap();
/// ```
pub fn split<S>(stream: S) -> (StreamReader, StreamWriter)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    // Ours are written to at once, without a task.
    let mut stream = Some(stream);
    let any: &mut dyn Any = &mut stream;
    if let Some(ours) = any.downcast_mut().and_then(Option::<TcpStream>::take) {
        return ends(ours);
    }
    if let Some(ours) = any.downcast_mut().and_then(Option::<UnixStream>::take) {
        return ends(ours);
    }
    match stream {
        Some(foreign) => ends(Foreign(RefCell::new(foreign))),
        None => unreachable!("taken by those who returned"),
    }
}

pub(super) fn ends(transport: impl Transport + 'static) -> (StreamReader, StreamWriter) {
    let transport: Rc<dyn Transport> = Rc::new(transport);
    (
        StreamReader::new(transport.clone(), LIMIT),
        StreamWriter::new(transport),
    )
}
