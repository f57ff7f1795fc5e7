use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt};

use super::stream::{BACKLOG, Listener, Socket, Stream};
use crate::asyncio::source::{Io, Way};

/// A TCP connection.
///
/// ```
/// use ropewalk::asyncio::{self, net};
///
/// asyncio::run(async {
///     let listener = net::TcpListener::bind("127.0.0.1:0".parse()?)?;
///     let client = net::TcpStream::connect(listener.local_addr()?).await?;
///     let (server, peer) = listener.accept().await?;
///     assert_eq!(peer, client.local_addr()?);
///     client.write_all(b"flag").await?;
///     let mut flag = [0; 4];
///     server.read_exact(&mut flag).await?;
///     assert_eq!(&flag, b"flag");
///     Ok(())
/// })
/// # .unwrap();
/// ```
pub type TcpStream = Stream<std::net::TcpStream>;

/// A TCP socket that takes connections.
pub type TcpListener = Listener<std::net::TcpListener>;

impl Socket for std::net::TcpStream {
    fn shut(&self, how: Shutdown) -> io::Result<()> {
        self.shutdown(how)
    }

    fn peer(&self) -> io::Result<SocketAddr> {
        self.peer_addr()
    }
}

impl TcpStream {
    /// Connects to `address`.
    ///
    /// # Errors
    /// The system's (nobody there: `ConnectionRefused`); the cancellation of the task, which gives the attempt up.
    pub async fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = Stream(Io::new(std::net::TcpStream::from(open(&address)?))?);
        match rustix::net::connect(&stream, &address) {
            Ok(()) => return Ok(stream),
            Err(rustix::io::Errno::INPROGRESS | rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        stream.0.wait(Way::Write, connected).await?;
        Ok(stream)
    }

    /// Has an open socket used by the running loop.
    ///
    /// # Errors
    /// The system's.
    pub fn from_std(stream: std::net::TcpStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Stream(Io::new(stream)?))
    }

    /// The address of the other end.
    ///
    /// # Errors
    /// The system's.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.0.get().peer_addr()
    }

    /// The address of this end.
    ///
    /// # Errors
    /// The system's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.get().local_addr()
    }

    /// Whether small writes go out at once (`TCP_NODELAY`).
    ///
    /// # Errors
    /// The system's.
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        self.0.get().set_nodelay(nodelay)
    }
}

/// A socket of the family of an address.
fn open(address: &SocketAddr) -> rustix::io::Result<OwnedFd> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    rustix::net::socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))
}

/// How a connection that was under way has ended.
fn connected(stream: &std::net::TcpStream) -> io::Result<()> {
    if let Some(error) = stream.take_error()? {
        return Err(error);
    }
    match stream.peer_addr() {
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Err(io::ErrorKind::WouldBlock.into()),
        outcome => outcome.map(drop),
    }
}

impl TcpListener {
    /// Listens at `address`; port 0: any that is free.
    ///
    /// # Errors
    /// The system's (`AddrInUse`).
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind(address)?;
        rustix::net::listen(&listener, BACKLOG)?;
        Self::from_std(listener)
    }

    /// The same, but that `::` means the addresses of IPv6 alone.
    pub(super) fn bind_only(address: SocketAddr) -> io::Result<Self> {
        let socket = open(&address)?;
        sockopt::set_socket_reuseaddr(&socket, true)?;
        if address.is_ipv6() {
            sockopt::set_ipv6_v6only(&socket, true)?;
        }
        rustix::net::bind(&socket, &address)?;
        rustix::net::listen(&socket, BACKLOG)?;
        Self::from_std(socket.into())
    }

    /// Has an open socket used by the running loop.
    ///
    /// # Errors
    /// The system's.
    pub fn from_std(listener: std::net::TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Listener(Io::new(listener)?))
    }

    /// Waits for a connection, and says where it comes from.
    ///
    /// # Errors
    /// The system's, after which it can be called again; the cancellation of the task.
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, peer) = self.0.wait(Way::Read, |listener| listener.accept()).await?;
        Ok((TcpStream::from_std(stream)?, peer))
    }

    /// The address at which it listens.
    ///
    /// # Errors
    /// The system's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.get().local_addr()
    }
}
