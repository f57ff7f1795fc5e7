use super::*;
use crate::asyncio::net::{
    LookupError, LookupErrorKind, NI_NUMERICHOST, NI_NUMERICSERV, TcpListener, TcpStream, UdpSocket,
    UnixListener, UnixStream,
};
use std::cell::Cell;
use std::io::{ErrorKind, Write};
use std::net::{Shutdown, SocketAddr};

const LOCAL: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// A server that sends back what it gets, for the rest of the program.
fn echo_server() -> Result<SocketAddr> {
    let listener = TcpListener::bind(LOCAL)?;
    let address = listener.local_addr()?;
    drop(asyncio::create_task::<(), _>(async move {
        loop {
            let (stream, _) = listener.accept().await?;
            drop(asyncio::create_task(async move {
                let mut buffer = [0; 4096];
                loop {
                    let count = stream.read(&mut buffer).await?;
                    if count == 0 {
                        return Ok(());
                    }
                    stream.write_all(&buffer[..count]).await?;
                }
            }));
        }
    }));
    Ok(address)
}

#[test]
fn two_hundred_connections_at_once_echo() {
    asyncio::run(async {
        let address = echo_server()?;
        let clients: Vec<_> = (0..200u32)
            .map(|number| async move {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                assert_eq!(stream.peer_addr()?, address);
                for round in 0..5 {
                    let sent = (number * 10 + round).to_be_bytes();
                    stream.write_all(&sent).await?;
                    let mut received = [0; 4];
                    stream.read_exact(&mut received).await?;
                    assert_eq!(received, sent);
                }
                stream.shutdown(Shutdown::Write)?;
                Ok(stream.read(&mut [0; 1]).await?)
            })
            .collect();
        assert!(asyncio::gather(clients).await?.iter().all(|&end| end == 0));
        Ok(())
    })
    .unwrap();
}

#[test]
fn more_than_fits_is_written_while_it_is_read() {
    asyncio::run(async {
        let (one, other) = UnixStream::pair()?;
        let sent: Vec<u8> = (0..3_000_000u32).map(|number| (number % 251) as u8).collect();
        let expected = sent.clone();
        let writer = asyncio::create_task(async move {
            one.write_all(&sent).await?;
            Ok(())
        });
        let mut received = vec![0; expected.len()];
        other.read_exact(&mut received).await?;
        assert!(received == expected);
        writer.await?;
        assert_eq!(other.read(&mut received).await?, 0, "the writer's end is gone");
        assert_eq!(
            other.read_exact(&mut [0; 1]).await.unwrap_err().kind(),
            ErrorKind::UnexpectedEof
        );
        let error = other.write_all(&[0; 1]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_cancelled_read_loses_no_byte() {
    asyncio::run(async {
        let (one, other) = UnixStream::pair()?;
        let other = Rc::new(other);
        let reader = other.clone();
        let task = asyncio::create_task(async move {
            let mut buffer = [0; 4];
            Ok(reader.read(&mut buffer).await?)
        });
        turns(1).await?;
        one.write_all(b"flag").await?;
        task.cancel();
        assert!(task.await.unwrap_err().is_cancelled());
        let mut buffer = [0; 4];
        other.read_exact(&mut buffer).await?;
        assert_eq!(&buffer, b"flag");
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_task_that_always_finds_something_to_read_lets_the_others_run() {
    asyncio::run(async {
        let (one, other) = UnixStream::pair()?;
        one.write_all(&[7; 4096]).await?;
        let reader = asyncio::create_task(async move {
            for _ in 0..4096 {
                other.read_exact(&mut [0]).await?; // a system call each
            }
            Ok(())
        });
        let mut count = 0;
        while !reader.done() {
            asyncio::sleep(Duration::ZERO).await?;
            count += 1;
        }
        assert!(count >= 100, "{count} turns");
        Ok(())
    })
    .unwrap();
}

#[test]
fn two_tasks_share_a_stream_and_one_that_leaves_does_not_keep_the_other_asleep() {
    asyncio::run(async {
        let (one, other) = UnixStream::pair()?;
        let other = Rc::new(other);
        let reads = || {
            let other = other.clone();
            asyncio::create_task(async move { Ok(other.read(&mut [0; 1]).await?) })
        };
        let (first, second) = (reads(), reads());
        turns(1).await?;
        second.cancel();
        turns(1).await?;
        one.write_all(b"x").await?;
        assert_eq!(first.await?, 1);
        Ok(())
    })
    .unwrap();
}

#[test]
fn nobody_at_an_address_is_an_error_and_an_address_in_use_another() {
    asyncio::run(async {
        let listener = TcpListener::bind(LOCAL)?;
        let address = listener.local_addr()?;
        assert_eq!(
            TcpListener::bind(address).unwrap_err().kind(),
            ErrorKind::AddrInUse
        );
        drop(listener);
        let error = TcpStream::connect(address).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        let missing = UnixStream::connect("/nonexistent/socket").await.unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotFound);
        Ok(())
    })
    .unwrap();
    assert!(TcpListener::bind(LOCAL).is_err(), "outside a loop");
}

#[test]
fn a_unix_listener_takes_connections() {
    let directory = std::env::temp_dir().join(format!("ropewalk-net-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join("socket");
    let bound = path.clone();
    asyncio::run(async move {
        let listener = UnixListener::bind(&bound)?;
        let (client, server) =
            asyncio::gather((async { Ok(UnixStream::connect(bound).await?) }, async move {
                Ok(listener.accept().await?)
            }))
            .await?;
        client.write_all(b"flag").await?;
        let mut buffer = [0; 4];
        server.read_exact(&mut buffer).await?;
        assert_eq!(&buffer, b"flag");
        Ok(())
    })
    .unwrap();
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn datagrams_keep_their_bounds_and_a_cancelled_receive_loses_none() {
    asyncio::run(async {
        let (one, other) = (UdpSocket::bind(LOCAL)?, Rc::new(UdpSocket::bind(LOCAL)?));
        one.connect(other.local_addr()?)?;
        let receiver = other.clone();
        let task = asyncio::create_task(async move { Ok(receiver.recv_from(&mut [0; 9]).await?) });
        turns(1).await?;
        for datagram in [&b"one"[..], b"", b"three"] {
            assert_eq!(one.send(datagram).await?, datagram.len());
        }
        task.cancel();
        assert!(task.await.unwrap_err().is_cancelled());
        let mut buffer = [0; 9];
        for length in [3, 0, 5] {
            assert_eq!(other.recv_from(&mut buffer).await?, (length, one.local_addr()?));
        }
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_datagram_that_cannot_arrive_is_an_error() {
    asyncio::run(async {
        let one = UdpSocket::bind(LOCAL)?;
        let nobody = UdpSocket::bind(LOCAL)?.local_addr()?;
        let error = one.send_to(&[0; 70_000], nobody).await.unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EMSGSIZE));
        one.connect(nobody)?;
        one.send(b"flag").await?;
        let error = one.recv(&mut [0; 9]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        let taken = UdpSocket::bind(one.local_addr()?).unwrap_err();
        assert_eq!(taken.kind(), ErrorKind::AddrInUse);
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_cancelled_accept_loses_no_connection() {
    asyncio::run(async {
        let listener = Rc::new(TcpListener::bind(LOCAL)?);
        let taker = listener.clone();
        let task = asyncio::create_task(async move { Ok(taker.accept().await?) });
        turns(1).await?;
        let client = std::net::TcpStream::connect(listener.local_addr()?)?;
        task.cancel();
        assert!(task.await.unwrap_err().is_cancelled());
        assert_eq!(listener.accept().await?.1, client.local_addr()?);
        Ok(())
    })
    .unwrap();
}

#[test]
fn hosts_have_addresses_or_are_an_error() {
    asyncio::run(async {
        let event_loop = asyncio::get_running_loop()?;
        let addresses = event_loop.getaddrinfo("localhost", 80).await?;
        assert!(
            addresses
                .iter()
                .all(|address| address.ip().is_loopback() && address.port() == 80)
        );
        assert!(!addresses.is_empty());
        assert_eq!(event_loop.getaddrinfo("::1", 1).await?, ["[::1]:1".parse()?]);
        for host in ["no such host", "", "a\0b"] {
            let error = event_loop.getaddrinfo(host, 80).await.unwrap_err();
            assert!(error.downcast_ref::<LookupError>().is_some(), "{error:?}");
        }
        Ok(())
    })
    .unwrap();
}

#[test]
fn addresses_have_names_or_are_an_error() {
    asyncio::run(async {
        let event_loop = asyncio::get_running_loop()?;
        let address = "127.0.0.1:80".parse()?;
        let (host, service) = event_loop.getnameinfo(address, NI_NUMERICSERV).await?;
        assert!(!host.is_empty());
        assert_eq!(service, "80");
        let (host, service) = event_loop.getnameinfo(address, NI_NUMERICHOST).await?;
        assert_eq!(host, "127.0.0.1");
        assert!(["http", "80"].contains(&service.as_str()), "{service}");
        let error = event_loop.getnameinfo(address, 1 << 30).await.unwrap_err();
        let error: &LookupError = error.downcast_ref().unwrap();
        assert!(matches!(error.kind(), LookupErrorKind::Badflags));
        assert_eq!(error.error_num(), libc::EAI_BADFLAGS);
        Ok(())
    })
    .unwrap();
}

#[test]
fn an_address_in_figures_is_named_without_a_thread() {
    let event_loop = asyncio::EventLoop::new().unwrap();
    let names = std::pin::pin!(
        event_loop.getnameinfo("127.0.0.1:80".parse().unwrap(), NI_NUMERICHOST | NI_NUMERICSERV)
    )
    .poll(&mut std::task::Context::from_waker(std::task::Waker::noop()));
    let std::task::Poll::Ready(Ok(names)) = names else {
        panic!("it waits")
    };
    assert_eq!(names, ("127.0.0.1".to_owned(), "80".to_owned()));
}

#[test]
fn a_socket_of_another_loop_is_an_error_and_not_a_hang() {
    let (one, _other) = asyncio::run(async { Ok(UnixStream::pair()?) }).unwrap();
    asyncio::run(async move {
        let error = one.read(&mut [0; 1]).await.unwrap_err();
        assert!(error.to_string().contains("another event loop"));
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_reader_is_called_while_there_is_something_and_until_it_is_removed() {
    asyncio::run(async {
        let (mut one, other) = std::os::unix::net::UnixStream::pair()?;
        let other = Rc::new(other);
        let event_loop = asyncio::get_running_loop()?;
        let calls = Rc::new(Cell::new(0));
        let seen = calls.clone();
        event_loop.add_reader(&*other, move || seen.set(seen.get() + 1))?;
        one.write_all(b"x")?;
        while calls.get() < 3 {
            asyncio::sleep(Duration::ZERO).await?; // it is never read, and told again and again
        }
        assert!(event_loop.remove_reader(&*other)?);
        assert!(!event_loop.remove_reader(&*other)?);
        turns(3).await?; // one that was ready already may come
        let before = calls.get();
        let writable = Rc::new(Cell::new(false));
        let seen = writable.clone();
        event_loop.add_writer(&*other, move || seen.set(true))?;
        while !writable.get() {
            asyncio::sleep(Duration::ZERO).await?;
        }
        assert!(event_loop.remove_writer(&*other)?);
        assert_eq!(calls.get(), before);
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_reader_replaces_one_and_cannot_take_a_streams_descriptor() {
    asyncio::run(async {
        let event_loop = asyncio::get_running_loop()?;
        let (stream, _peer) = UnixStream::pair()?;
        assert!(event_loop.add_reader(&stream, || ()).unwrap_err().is_misuse());
        let file = std::fs::File::open("/proc/self/status")?;
        let _ = event_loop.add_reader(&file, || ()); // an error or not, as the file system decides
        let (mut one, other) = std::os::unix::net::UnixStream::pair()?;
        let log = Log::default();
        let (old, new) = (Witness::new(&log), Rc::new(Cell::new(false)));
        event_loop.add_reader(&other, move || {
            let _kept = &old;
        })?;
        let seen = new.clone();
        event_loop.add_reader(&other, move || seen.set(true))?;
        log.is(["dropped"]);
        one.write_all(b"x")?;
        while !new.get() {
            asyncio::sleep(Duration::ZERO).await?;
        }
        event_loop.remove_reader(&other)?;
        Ok(())
    })
    .unwrap();
}

#[test]
fn the_traits_of_futures_io_work() {
    use futures_io::{AsyncRead, AsyncWrite};
    use std::pin::Pin;
    asyncio::run(async {
        let (mut one, mut other) = UnixStream::pair()?;
        let count = std::future::poll_fn(|cx| {
            let parts = [std::io::IoSlice::new(b"fl"), std::io::IoSlice::new(b"ag")];
            Pin::new(&mut one).poll_write_vectored(cx, &parts)
        })
        .await?;
        std::future::poll_fn(|cx| Pin::new(&mut one).poll_flush(cx)).await?;
        std::future::poll_fn(|cx| Pin::new(&mut one).poll_close(cx)).await?;
        let mut buffer = [0; 9];
        let read = std::future::poll_fn(|cx| Pin::new(&mut other).poll_read(cx, &mut buffer)).await?;
        assert_eq!((count, &buffer[..read]), (4, &b"flag"[..]));
        Ok(())
    })
    .unwrap();
}
