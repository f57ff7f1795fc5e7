use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

use crate::asyncio::to_thread;

/// The addresses of a host, asked for in a thread of the loop's pool (Python: `loop.getaddrinfo`). An address in figures is given
/// back at once.
///
/// # Errors
/// The system's: no such host. The cancellation of the task.
///
/// # Panics
/// When first polled outside a loop.
///
/// ```
/// use ropewalk::asyncio::{self, net};
///
/// asyncio::run(async {
///     let addresses = net::getaddrinfo("127.0.0.1", 80).await?;
///     assert_eq!(addresses, ["127.0.0.1:80".parse()?]);
///     Ok(())
/// })
/// # .unwrap();
/// ```
pub async fn getaddrinfo(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![(address, port).into()]);
    }
    let host = host.to_owned();
    let call = move || (host.as_str(), port).to_socket_addrs().map(Vec::from_iter);
    to_thread(call).await?
}
