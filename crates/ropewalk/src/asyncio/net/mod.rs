//! Sockets: TCP, Unix and UDP, and connections with buffers ([`open_connection`], [`start_server`]).
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
//!
//! # TLS, HTTP and others
//!
//! Streams have the traits of `futures-io`, so that what is built on those works here: TLS by `futures-rustls`, HTTP by hyper (see the
//! example `http_client`). It does not look for cancellations: await it by [`cancellable`](super::cancellable), or by the reader and
//! writer that [`split`] makes of it.
//!
//! ```
//! use futures_rustls::rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
//! use futures_rustls::{TlsAcceptor, TlsConnector};
//! use ropewalk::asyncio::{self, cancellable, net};
//! use std::sync::Arc;
//!
//! async fn ask(host: &'static str, port: u16, roots: RootCertStore) -> asyncio::Result<Vec<u8>> {
//!     let client = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
//!     let stream = net::create_connection(host, port).await?;
//!     let handshake = TlsConnector::from(Arc::new(client)).connect(ServerName::try_from(host)?, stream);
//!     let (mut reader, mut writer) = net::split(cancellable(handshake).await??);
//!     writer.write(b"a secret?\n");
//!     reader.readline().await
//! }
//! # use futures_rustls::rustls::{ServerConfig, pki_types::PrivateKeyDer};
//! # let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
//! # let certificate = signed.cert.der().clone();
//! # let mut roots = RootCertStore::empty();
//! # roots.add(certificate.clone())?;
//! # let key = PrivateKeyDer::try_from(signed.signing_key.serialize_der())?;
//! # let server = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key)?;
//! # asyncio::run(async {
//! #     let listener = net::TcpListener::bind("127.0.0.1:0".parse()?)?;
//! #     let port = listener.local_addr()?.port();
//! #     let served = asyncio::create_task(async move {
//! #         let stream = listener.accept().await?.0;
//! #         let stream = cancellable(TlsAcceptor::from(Arc::new(server)).accept(stream)).await??;
//! #         let (mut reader, mut writer) = net::split(stream);
//! #         assert_eq!(reader.readline().await?, b"a secret?\n");
//! #         writer.write(b"yes\n");
//! #         writer.wait_closed().await
//! #     });
//! #     assert_eq!(ask("localhost", port, roots).await?, b"yes\n");
//! #     served.await
//! # })
//! # .unwrap();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod connection;
mod dns;
mod pipe;
mod reader;
mod stream;
mod tcp;
mod transport;
mod udp;
mod unix;
mod writer;

pub use connection::{
    Server, create_connection, open_connection, open_unix_connection, start_server, start_unix_server,
};
pub(super) use pipe::{pipe_reader, pipe_writer};
pub use reader::{IncompleteRead, LimitOverrun, StreamReader};
pub use stream::{Listener, Stream};
pub use tcp::{TcpListener, TcpStream};
pub use transport::split;
pub use udp::UdpSocket;
pub use unix::{UnixListener, UnixStream};
pub use writer::StreamWriter;

pub use dns_lookup::{LookupError, LookupErrorKind};
pub use libc::{NI_DGRAM, NI_NAMEREQD, NI_NOFQDN, NI_NUMERICHOST, NI_NUMERICSERV};
