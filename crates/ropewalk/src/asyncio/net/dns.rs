use std::future::Future;
use std::net::{IpAddr, SocketAddr};

use dns_lookup::AddrInfoHints;

#[cfg(doc)]
use crate::asyncio::Error;
use crate::asyncio::error::Result;
use crate::asyncio::{EventLoop, wrap_future};

impl EventLoop {
    /// The addresses of a host, asked for in a thread of the loop's pool (Python: `loop.getaddrinfo`). An address in figures is given
    /// back at once.
    ///
    /// # Errors
    /// A [`LookupError`](crate::asyncio::net::LookupError) (Python: `socket.gaierror`): no such host, no answer. The cancellation of
    /// the task. One that [`is_misuse`](Error::is_misuse) if the loop is closed.
    ///
    /// ```
    /// use ropewalk::asyncio::{self, net};
    ///
    /// asyncio::run(async {
    ///     let event_loop = asyncio::get_running_loop()?;
    ///     assert_eq!(event_loop.getaddrinfo("127.0.0.1", 80).await?, ["127.0.0.1:80".parse()?]);
    ///     let error = event_loop.getaddrinfo("", 80).await.unwrap_err();
    ///     let error: &net::LookupError = error.downcast_ref().unwrap();
    ///     assert_eq!(error.error_num(), libc::EAI_NONAME);
    ///     Ok(())
    /// })
    /// # .unwrap();
    /// ```
    pub fn getaddrinfo(
        &self,
        host: &str,
        port: u16,
    ) -> impl Future<Output = Result<Vec<SocketAddr>>> + use<> {
        let figures = host.parse::<IpAddr>();
        let host = host.to_owned();
        let ask = move || {
            let hints = AddrInfoHints {
                socktype: libc::SOCK_STREAM, // each address once
                ..AddrInfoHints::default()
            };
            dns_lookup::getaddrinfo(Some(&host), None, Some(hints))
        };
        let asked = figures.is_err().then(|| self.run_in_executor(ask));
        async move {
            if let Ok(address) = figures {
                return Ok(vec![(address, port).into()]);
            }
            let mut addresses = Vec::new();
            if let Some(asked) = asked {
                for info in wrap_future(asked?).await?? {
                    let mut address = info?.sockaddr;
                    address.set_port(port);
                    addresses.push(address);
                }
            }
            Ok(addresses)
        }
    }

    /// The names of a host and a service (Python: `loop.getnameinfo`), asked for in a thread of the loop's pool. `flags` are `NI_…` of
    /// [`net`](crate::asyncio::net); with `NI_NUMERICHOST` and `NI_NUMERICSERV` there is nothing to ask, and the answer comes at once.
    ///
    /// # Errors
    /// A [`LookupError`](crate::asyncio::net::LookupError) (Python: `socket.gaierror`): no name, for who asks with `NI_NAMEREQD`; no
    /// answer. The cancellation of the task. One that [`is_misuse`](Error::is_misuse) if the loop is closed.
    ///
    /// ```
    /// use ropewalk::asyncio::{self, net};
    ///
    /// asyncio::run(async {
    ///     let flags = net::NI_NUMERICHOST | net::NI_NUMERICSERV;
    ///     let names = asyncio::get_running_loop()?.getnameinfo("[::1]:80".parse()?, flags).await?;
    ///     assert_eq!(names, ("::1".to_owned(), "80".to_owned()));
    ///     Ok(())
    /// })
    /// # .unwrap();
    /// ```
    pub fn getnameinfo(
        &self,
        address: SocketAddr,
        flags: i32,
    ) -> impl Future<Output = Result<(String, String)>> + use<> {
        const NUMERIC: i32 = libc::NI_NUMERICHOST | libc::NI_NUMERICSERV;
        let ask = move || dns_lookup::getnameinfo(&address, flags);
        let asked = (flags & NUMERIC != NUMERIC).then(|| self.run_in_executor(ask));
        async move {
            match asked {
                Some(asked) => Ok(wrap_future(asked?).await??),
                None => Ok(ask()?),
            }
        }
    }
}
