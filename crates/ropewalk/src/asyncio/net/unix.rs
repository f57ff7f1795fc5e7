use std::io;
use std::net::{Shutdown, SocketAddr};
use std::path::Path;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::stream::{BACKLOG, Listener, Socket, Stream};
use crate::asyncio::source::{Io, Way};

/// A connection by a Unix socket.
///
/// ```
/// use ropewalk::asyncio::{self, net::UnixStream};
///
/// asyncio::run(async {
///     let (one, other) = UnixStream::pair()?;
///     one.write_all(b"flag").await?;
///     drop(one);
///     let mut buffer = [0; 16];
///     assert_eq!(other.read(&mut buffer).await?, 4);
///     assert_eq!(other.read(&mut buffer).await?, 0); // the end
///     Ok(())
/// })
/// # .unwrap();
/// ```
pub type UnixStream = Stream<std::os::unix::net::UnixStream>;

/// A Unix socket that takes connections.
pub type UnixListener = Listener<std::os::unix::net::UnixListener>;

impl Socket for std::os::unix::net::UnixStream {
    fn shut(&self, how: Shutdown) -> io::Result<()> {
        self.shutdown(how)
    }

    fn peer(&self) -> io::Result<SocketAddr> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl UnixStream {
    /// Connects to the socket at `path`.
    ///
    /// # Errors
    /// The system's (`NotFound`, `ConnectionRefused`); the cancellation of the task.
    pub async fn connect(path: impl AsRef<Path>) -> io::Result<Self> {
        let address = SocketAddrUnix::new(path.as_ref())?;
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        let stream = Stream(Io::new(std::os::unix::net::UnixStream::from(socket))?);
        loop {
            match rustix::net::connect(&stream, &address) {
                Ok(()) => return Ok(stream),
                // The queue of the listener is full, which no poll tells the end of.
                Err(rustix::io::Errno::AGAIN) => crate::asyncio::sleep(RETRY).await?,
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Two ends of one connection.
    ///
    /// # Errors
    /// The system's.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (one, other) = std::os::unix::net::UnixStream::pair()?;
        Ok((Self::from_std(one)?, Self::from_std(other)?))
    }

    /// Has an open socket used by the running loop.
    ///
    /// # Errors
    /// The system's.
    pub fn from_std(stream: std::os::unix::net::UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Stream(Io::new(stream)?))
    }
}

/// How long to wait before knocking again at a listener that is too busy.
const RETRY: std::time::Duration = std::time::Duration::from_millis(5);

impl UnixListener {
    /// Listens at `path`, which must not exist; it stays there when the listener is dropped.
    ///
    /// # Errors
    /// The system's (`AddrInUse`).
    pub fn bind(path: impl AsRef<Path>) -> io::Result<Self> {
        let listener = std::os::unix::net::UnixListener::bind(path)?;
        rustix::net::listen(&listener, BACKLOG)?;
        listener.set_nonblocking(true)?;
        Ok(Listener(Io::new(listener)?))
    }

    /// Waits for a connection.
    ///
    /// # Errors
    /// The system's, after which it can be called again; the cancellation of the task.
    pub async fn accept(&self) -> io::Result<UnixStream> {
        let (stream, _) = self.0.wait(Way::Read, |listener| listener.accept()).await?;
        UnixStream::from_std(stream)
    }
}
