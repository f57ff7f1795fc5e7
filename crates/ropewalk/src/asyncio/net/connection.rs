//! Connections with buffers: [`open_connection`], [`start_server`] and what they share.

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use super::reader::StreamReader;
use super::transport::{Transport, ends};
use super::writer::StreamWriter;
use super::{TcpListener, TcpStream, UnixListener, UnixStream};
use crate::asyncio::error::{Result, find_cancelled};
use crate::asyncio::event_loop::ExceptionContext;
use crate::asyncio::runner::create_task;
use crate::asyncio::task::Task;
use crate::asyncio::{TaskGroup, get_running_loop, sleep};

/// Connects by TCP to the first address of a host that answers (Python: `asyncio.open_connection`).
///
/// # Errors
/// The host has no address, or the last one of them refused; the cancellation of the task. Outside a loop.
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
///     let (mut reader, mut writer) = net::open_connection("127.0.0.1", server.local_addrs()[0].port()).await?;
///     writer.write(b"hello\n");
///     assert_eq!(reader.readline().await?, b"HELLO\n");
///     Ok(())
/// })
/// # .unwrap();
/// ```
pub async fn open_connection(host: &str, port: u16) -> Result<(StreamReader, StreamWriter)> {
    Ok(ends(create_connection(host, port).await?))
}

/// The same without buffers (Python: `loop.create_connection`): for libraries that bring theirs. See the [module](super) for an
/// example.
///
/// # Errors
/// As [`open_connection`].
pub async fn create_connection(host: &str, port: u16) -> Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for address in get_running_loop()?.getaddrinfo(host, port).await? {
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

/// Listens at every address of a host and has a task run `serve` for each connection (Python: `asyncio.start_server`).
///
/// An empty host means all interfaces, by IPv4 and IPv6. With port 0 the system chooses a free one for each address; see
/// [`local_addrs`](Server::local_addrs). An address of the host that this machine does not have, such as `::1` without IPv6, is left
/// out if there are others.
///
/// A failure of such a task is told to the loop's exception handler.
///
/// # Errors
/// The host has no address, or one is in use (`AddrInUse`); the cancellation of the task. Outside a loop.
///
/// ```
/// use ropewalk::asyncio::{self, net};
///
/// asyncio::run(async {
///     let mut server = net::start_server("127.0.0.1", 0, async |mut reader, mut writer| {
///         let country = reader.readline().await?;
///         writer.write(if country == b"BR\n" { b"yes" } else { b"no" });
///         writer.wait_closed().await // until all is out; then the connection is closed
///     })
///     .await?;
///     let (mut reader, mut writer) = net::open_connection("127.0.0.1", server.local_addrs()[0].port()).await?;
///     writer.write(b"BR\n");
///     assert_eq!(reader.read_to_end().await?, b"yes");
///     server.close();
///     assert!(server.serve_forever().await.unwrap_err().is_cancelled());
///     Ok(())
/// })
/// # .unwrap();
/// ```
pub async fn start_server<S, F>(host: &str, port: u16, serve: S) -> Result<Server>
where
    S: Fn(StreamReader, StreamWriter) -> F + 'static,
    F: Future<Output = Result<()>> + 'static,
{
    let event_loop = get_running_loop()?;
    let addresses = match host {
        "" => vec![
            (Ipv4Addr::UNSPECIFIED, port).into(),
            (Ipv6Addr::UNSPECIFIED, port).into(),
        ],
        _ => event_loop.getaddrinfo(host, port).await?,
    };
    let listeners = listen(&addresses)?;
    let addresses = listeners.iter().map(TcpListener::local_addr);
    let addresses = addresses.collect::<io::Result<_>>()?;
    let serve = Rc::new(serve);
    let task = create_task(async move {
        let group = TaskGroup::new();
        let body = group.run(async |group| {
            for listener in listeners {
                let accept = async move || {
                    let (stream, _) = listener.accept().await?;
                    let _ = stream.set_nodelay(true); // a connection that is gone already shows that when it is read
                    Ok(stream)
                };
                group.create_task(take_connections(accept, serve.clone()));
            }
            Ok(())
        });
        body.await
    });
    Ok(Server { task, addresses })
}

/// Listens at each address once, but for those that the machine does not have.
fn listen(addresses: &[SocketAddr]) -> io::Result<Vec<TcpListener>> {
    let mut listeners = Vec::new();
    let mut missing = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for (index, address) in addresses.iter().enumerate() {
        if addresses[..index].contains(address) {
            continue;
        }
        match TcpListener::bind_only(*address) {
            Ok(listener) => listeners.push(listener),
            Err(error) => {
                let number = error.raw_os_error();
                let error = io::Error::new(error.kind(), format!("cannot listen at {address}: {error}"));
                match number {
                    // The address, or with it all of IPv6.
                    Some(libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT) => missing = error,
                    _ => return Err(error),
                }
            }
        }
    }
    match listeners.is_empty() {
        true => Err(missing),
        false => Ok(listeners),
    }
}

/// The same at a Unix socket (Python: `asyncio.start_unix_server`), whose path must not exist, and stays.
///
/// # Errors
/// As [`UnixListener::bind`].
///
/// ```
/// use ropewalk::asyncio::{self, net};
///
/// let path = std::env::temp_dir().join(format!("flags-{}", std::process::id()));
/// # let unlink = path.clone();
/// asyncio::run(async move {
///     let _server = net::start_unix_server(&path, async |mut reader, mut writer| {
///         writer.write(&reader.readline().await?.to_ascii_lowercase());
///         writer.wait_closed().await
///     })
///     .await?;
///     let (mut reader, mut writer) = net::open_unix_connection(&path).await?;
///     writer.write(b"BR\n");
///     assert_eq!(reader.read_to_end().await?, b"br\n");
///     Ok(())
/// })
/// # .unwrap();
/// # std::fs::remove_file(unlink).unwrap();
/// ```
pub async fn start_unix_server<S, F>(path: impl AsRef<Path>, serve: S) -> Result<Server>
where
    S: Fn(StreamReader, StreamWriter) -> F + 'static,
    F: Future<Output = Result<()>> + 'static,
{
    let listener = UnixListener::bind(path)?;
    let accept = async move || listener.accept().await;
    let task = create_task(take_connections(accept, Rc::new(serve)));
    let addresses = Vec::new();
    Ok(Server { task, addresses })
}

async fn take_connections<T, S, F>(accept: impl AsyncFn() -> io::Result<T>, serve: Rc<S>) -> Result<()>
where
    T: Transport + 'static,
    S: Fn(StreamReader, StreamWriter) -> F + 'static,
    F: Future<Output = Result<()>> + 'static,
{
    loop {
        match accept().await {
            Ok(stream) => {
                let (reader, writer) = ends(stream);
                drop(create_task(serve(reader, writer)));
            }
            Err(error) if is_cancelled(&error) => return Err(error.into()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {} // the peer was gone too early
            Err(error) => {
                // There are no descriptors: those that are served will give theirs back.
                get_running_loop()?.call_exception_handler(&ExceptionContext {
                    message: "a server cannot accept a connection and tries again",
                    exception: Some(error.into()),
                    task: None,
                });
                sleep(PAUSE).await?;
            }
        }
    }
}

/// How long a server that cannot accept waits before it tries again.
const PAUSE: Duration = Duration::from_millis(100);

/// A server that takes connections until it is closed or dropped (Python: `asyncio.Server`). Connections that it took go on.
#[derive(Debug)]
pub struct Server {
    task: Task<()>,
    addresses: Vec<SocketAddr>,
}

impl Server {
    /// The addresses at which it listens, or did (Python: `sockets`); none at a Unix socket.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.addresses
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
