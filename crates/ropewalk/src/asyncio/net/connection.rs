//! Connections with buffers: [`open_connection`], [`start_server`] and what they share.

use std::future::Future;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::AsFd;
use std::path::Path;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::reader::{LIMIT, StreamReader};
use super::stream::{Socket, Stream};
use super::writer::StreamWriter;
use super::{TcpListener, TcpStream, UnixStream, getaddrinfo};
use crate::asyncio::error::{Result, find_cancelled};
use crate::asyncio::runner::create_task;
use crate::asyncio::source::Way;
use crate::asyncio::task::Task;

/// A stream of any kind, as reader and writer see it.
pub(super) trait Transport {
    fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>>;
    fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>>;
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize>;
    fn shut(&self, how: Shutdown) -> io::Result<()>;
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

    fn shut(&self, how: Shutdown) -> io::Result<()> {
        self.0.get().shut(how)
    }
}

fn ends(transport: impl Transport + 'static) -> (StreamReader, StreamWriter) {
    let transport: Rc<dyn Transport> = Rc::new(transport);
    (
        StreamReader::new(transport.clone(), LIMIT),
        StreamWriter::new(transport),
    )
}

/// Connects by TCP to the first address of a host that answers (Python: `asyncio.open_connection`).
///
/// # Errors
/// The host has no address, or the last one of them refused; the cancellation of the task.
///
/// # Panics
/// When first polled outside a loop.
///
/// ```
/// use ropewalk::asyncio::{self, net};
///
/// asyncio::run(async {
///     let server = net::start_server("127.0.0.1", 0, async |mut reader, mut writer| {
///         let line = reader.readline().await?;
///         writer.write(&line.to_ascii_uppercase());
///         writer.drain().await
///     });
///     let server = server.await?;
///     let (mut reader, mut writer) = net::open_connection("127.0.0.1", server.local_addr().port()).await?;
///     writer.write(b"hello\n");
///     assert_eq!(reader.readline().await?, b"HELLO\n");
///     Ok(())
/// })
/// # .unwrap();
/// ```
pub async fn open_connection(host: &str, port: u16) -> Result<(StreamReader, StreamWriter)> {
    Ok(ends(create_connection(host, port).await?))
}

/// The same without buffers (Python: `loop.create_connection`): for libraries that bring theirs.
///
/// # Errors
/// As [`open_connection`].
///
/// # Panics
/// As [`open_connection`].
pub async fn create_connection(host: &str, port: u16) -> Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for address in getaddrinfo(host, port).await? {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
        if is_cancelled(&last) {
            break;
        }
    }
    Err(last.into())
}

fn is_cancelled(error: &io::Error) -> bool {
    find_cancelled(error).is_some()
}

/// Connects to a Unix socket (Python: `asyncio.open_unix_connection`).
///
/// # Errors
/// As [`UnixStream::connect`].
pub async fn open_unix_connection(path: impl AsRef<Path>) -> Result<(StreamReader, StreamWriter)> {
    Ok(ends(UnixStream::connect(path).await?))
}

/// Listens at the first address of a host and has a task run `serve` for each connection (Python: `asyncio.start_server`).
///
/// A failure of such a task is told to the loop's exception handler.
///
/// # Errors
/// The host has no address, or it is in use; the cancellation of the task.
///
/// # Panics
/// When first polled outside a loop.
pub async fn start_server<S, F>(host: &str, port: u16, serve: S) -> Result<Server>
where
    S: Fn(StreamReader, StreamWriter) -> F + 'static,
    F: Future<Output = Result<()>> + 'static,
{
    let addresses = getaddrinfo(host, port).await?;
    let address = *addresses
        .first()
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the host has no address"))?;
    let listener = TcpListener::bind(address)?;
    let address = listener.local_addr()?;
    let task = create_task(async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let _ = stream.set_nodelay(true); // a connection that is gone already shows that when it is read
                    let (reader, writer) = ends(stream);
                    drop(create_task(serve(reader, writer)));
                }
                Err(error) if is_cancelled(&error) => return Err(error.into()),
                // The peer was gone too early, or there are no descriptors: those that are served will give theirs back.
                Err(_) => crate::asyncio::sleep(PAUSE).await?,
            }
        }
    });
    Ok(Server { task, address })
}

/// How long a server that cannot accept waits before it tries again.
const PAUSE: Duration = Duration::from_millis(100);

/// A server that takes connections until it is closed or dropped (Python: `asyncio.Server`). Connections that it took go on.
#[derive(Debug)]
pub struct Server {
    task: Task<()>,
    address: SocketAddr,
}

impl Server {
    /// The address at which it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Takes no more connections.
    pub fn close(&self) {
        self.task.cancel();
    }

    /// Whether it still takes connections.
    pub fn is_serving(&self) -> bool {
        !self.task.done() && self.task.cancelling() == 0
    }

    /// Waits until the server is closed.
    ///
    /// # Errors
    /// The cancellation of this task, which closes the server.
    pub async fn serve_forever(&mut self) -> Result<()> {
        (&mut self.task).await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.close();
    }
}
