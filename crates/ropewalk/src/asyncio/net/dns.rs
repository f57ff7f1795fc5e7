use std::net::{IpAddr, SocketAddr};

use dns_lookup::AddrInfoHints;

use crate::asyncio::error::Result;
use crate::asyncio::to_thread;

/// The addresses of a host, asked for in a thread of the loop's pool (Python: `loop.getaddrinfo`). An address in figures is given
/// back at once.
///
/// # Errors
/// A [`LookupError`](super::LookupError) (Python: `socket.gaierror`): no such host, no answer. The cancellation of the task. Outside a loop.
///
/// ```
/// use ropewalk::asyncio::{self, net};
///
/// asyncio::run(async {
///     let addresses = net::getaddrinfo("127.0.0.1", 80).await?;
///     assert_eq!(addresses, ["127.0.0.1:80".parse()?]);
///     let error = net::getaddrinfo("", 80).await.unwrap_err();
///     let error: &net::LookupError = error.downcast_ref().unwrap();
///     assert_eq!(error.error_num(), libc::EAI_NONAME);
///     Ok(())
/// })
/// # .unwrap();
/// ```
pub async fn getaddrinfo(host: &str, port: u16) -> Result<Vec<SocketAddr>> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![(address, port).into()]);
    }
    let host = host.to_owned();
    let hints = AddrInfoHints {
        socktype: libc::SOCK_STREAM, // each address once
        ..AddrInfoHints::default()
    };
    let found = to_thread(move || dns_lookup::getaddrinfo(Some(&host), None, Some(hints))).await??;
    let addresses = found.map(|info| {
        let mut address = info?.sockaddr;
        address.set_port(port);
        Ok(address)
    });
    addresses.collect()
}

/// The names of a host and a service (Python: `loop.getnameinfo`), asked for in a thread of the loop's pool. `flags` are `NI_…` of
/// [`net`](super); with [`NI_NUMERICHOST`](super::NI_NUMERICHOST) and [`NI_NUMERICSERV`](super::NI_NUMERICSERV) there is nothing
/// to ask, and the answer comes at once.
///
/// # Errors
/// A [`LookupError`](super::LookupError) (Python: `socket.gaierror`): no name, for who asks with
/// [`NI_NAMEREQD`](super::NI_NAMEREQD); no answer. The cancellation of the task. Outside a loop.
///
/// ```
/// use ropewalk::asyncio::{self, net};
///
/// asyncio::run(async {
///     let flags = net::NI_NUMERICHOST | net::NI_NUMERICSERV;
///     let names = net::getnameinfo("[::1]:80".parse()?, flags).await?;
///     assert_eq!(names, ("::1".to_owned(), "80".to_owned()));
///     Ok(())
/// })
/// # .unwrap();
/// ```
pub async fn getnameinfo(address: SocketAddr, flags: i32) -> Result<(String, String)> {
    const NUMERIC: i32 = libc::NI_NUMERICHOST | libc::NI_NUMERICSERV;
    let ask = move || dns_lookup::getnameinfo(&address, flags);
    match flags & NUMERIC {
        NUMERIC => Ok(ask()?),
        _ => Ok(to_thread(ask).await??),
    }
}
