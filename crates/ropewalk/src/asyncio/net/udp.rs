use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};

use crate::asyncio::source::{Io, Way};

/// A UDP socket.
///
/// ```
/// use ropewalk::asyncio::{self, net::UdpSocket};
///
/// asyncio::run(async {
///     let (one, other) = (UdpSocket::bind("127.0.0.1:0".parse()?)?, UdpSocket::bind("127.0.0.1:0".parse()?)?);
///     one.send_to(b"flag", other.local_addr()?).await?;
///     let mut buffer = [0; 16];
///     let (count, from) = other.recv_from(&mut buffer).await?;
///     assert_eq!((&buffer[..count], from), (&b"flag"[..], one.local_addr()?));
///     Ok(())
/// })
/// # .unwrap();
/// ```
pub struct UdpSocket(Io<std::net::UdpSocket>);

impl UdpSocket {
    /// A socket at `address`; port 0: any that is free.
    ///
    /// # Errors
    /// The system's (`AddrInUse`).
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = std::net::UdpSocket::bind(address)?;
        socket.set_nonblocking(true)?;
        Ok(Self(Io::new(socket)?))
    }

    /// Sends a datagram.
    ///
    /// # Errors
    /// The system's (an earlier one was refused: `ConnectionRefused`); the cancellation of the task, in which case nothing is sent.
    pub async fn send_to(&self, bytes: &[u8], address: SocketAddr) -> io::Result<usize> {
        self.0
            .wait(Way::Write, |socket| socket.send_to(bytes, address))
            .await
    }

    /// Waits for a datagram; what does not fit into `buffer` is cut off.
    ///
    /// # Errors
    /// The system's; the cancellation of the task, in which case no datagram is lost.
    pub async fn recv_from(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.0.wait(Way::Read, |socket| socket.recv_from(buffer)).await
    }

    /// Sends to `address` alone from now on, and receives from it alone.
    ///
    /// # Errors
    /// The system's.
    pub fn connect(&self, address: SocketAddr) -> io::Result<()> {
        self.0.get().connect(address)
    }

    /// Sends a datagram to the connected address.
    ///
    /// # Errors
    /// As [`send_to`](UdpSocket::send_to).
    pub async fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        self.0.wait(Way::Write, |socket| socket.send(bytes)).await
    }

    /// Waits for a datagram from the connected address.
    ///
    /// # Errors
    /// As [`recv_from`](UdpSocket::recv_from).
    pub async fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.wait(Way::Read, |socket| socket.recv(buffer)).await
    }

    /// The address of this end.
    ///
    /// # Errors
    /// The system's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.get().local_addr()
    }
}

impl AsFd for UdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.get().as_fd()
    }
}

impl fmt::Debug for UdpSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.get().fmt(f)
    }
}
