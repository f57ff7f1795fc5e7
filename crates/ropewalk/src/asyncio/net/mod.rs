//! Sockets: TCP, Unix and UDP, names of hosts, and connections with buffers ([`open_connection`], [`start_server`]).
//!
//! Each belongs to the loop on which it was made. Operations are await points: a cancellation comes out of them as an
//! [`io::Error`](std::io::Error) made of [`Cancelled`](super::Cancelled), before any byte is lost. Several tasks may use one
//! socket, by reference.
//!
//! ```
//! use ropewalk::asyncio::{self, net};
//!
//! asyncio::run(async {
//!     let listener = net::TcpListener::bind("127.0.0.1:0".parse()?)?;
//!     let address = listener.local_addr()?;
//!     let server = asyncio::create_task(async move {
//!         let (stream, _peer) = listener.accept().await?;
//!         let mut question = [0; 5];
//!         stream.read_exact(&mut question).await?;
//!         stream.write_all(b"world").await?;
//!         Ok(question)
//!     });
//!     let stream = net::TcpStream::connect(address).await?;
//!     stream.write_all(b"hello").await?;
//!     let mut answer = [0; 5];
//!     stream.read_exact(&mut answer).await?;
//!     assert_eq!((&server.await?, &answer), (b"hello", b"world"));
//!     Ok(())
//! })
//! # .unwrap();
//! ```

mod connection;
mod dns;
mod pipe;
mod reader;
mod stream;
mod tcp;
mod udp;
mod unix;
mod writer;

pub use connection::{Server, open_connection, open_unix_connection, start_server};
pub use dns::{getaddrinfo, getnameinfo};
pub(super) use pipe::{pipe_reader, pipe_writer};
pub use reader::{IncompleteRead, LimitOverrun, StreamReader};
pub use stream::{Listener, Stream};
pub use tcp::{TcpListener, TcpStream};
pub use udp::UdpSocket;
pub use unix::{UnixListener, UnixStream};
pub use writer::StreamWriter;

pub use dns_lookup::{LookupError, LookupErrorKind};
pub use libc::{NI_DGRAM, NI_NAMEREQD, NI_NOFQDN, NI_NUMERICHOST, NI_NUMERICSERV};
