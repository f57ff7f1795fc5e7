use super::*;
use crate::asyncio::net::{
    IncompleteRead, LimitOverrun, StreamReader, StreamWriter, TcpStream, UnixListener, UnixStream,
    open_connection, open_unix_connection, split, start_server, start_unix_server,
};
use proptest::prelude::*;
use std::io::ErrorKind;

const HOST: &str = "127.0.0.1";

/// A client of a server that runs `serve`.
async fn connected<F>(
    serve: impl Fn(StreamReader, StreamWriter) -> F + 'static,
) -> Result<(StreamReader, StreamWriter)>
where
    F: Future<Output = Result<()>> + 'static,
{
    let server = start_server(HOST, 0, serve).await?;
    let port = server.local_addrs()[0].port();
    std::mem::forget(server); // it serves until the end of the program
    open_connection(HOST, port).await
}

/// A server that sends `bytes` and closes.
async fn sends(bytes: &'static [u8]) -> Result<(StreamReader, StreamWriter)> {
    connected(move |_reader, mut writer| async move {
        writer.write(bytes);
        asyncio::sleep(Duration::from_millis(5)).await?;
        writer.wait_closed().await
    })
    .await
}

#[test]
fn lines_come_with_their_ends_and_the_last_without() {
    asyncio::run(async {
        let (mut reader, _writer) = sends(b"BR\nCN\n\nIND").await?;
        for line in [&b"BR\n"[..], b"CN\n", b"\n", b"IND", b"", b""] {
            assert_eq!(reader.readline().await?, line);
        }
        assert!(reader.at_eof());
        Ok(())
    })
    .unwrap();
}

#[test]
fn bytes_come_by_number_by_separator_and_as_they_are() {
    asyncio::run(async {
        let (mut reader, _writer) = sends(b"0123456789<end>rest").await?;
        assert_eq!(reader.readexactly(4).await?, b"0123");
        assert_eq!(reader.readuntil(b"<end>").await?, b"456789<end>");
        assert_eq!(reader.read(0).await?, b"");
        assert_eq!(reader.read(2).await?, b"re");
        assert_eq!(reader.read_to_end().await?, b"st");
        assert_eq!(reader.read(9).await?, b"");
        Ok(())
    })
    .unwrap();
}

#[test]
fn an_end_that_comes_too_early_gives_what_there_was() {
    asyncio::run(async {
        let (mut reader, _writer) = sends(b"fla").await?;
        let error = reader.readexactly(4).await.unwrap_err();
        let incomplete = error.downcast_ref::<IncompleteRead>().unwrap();
        assert_eq!(incomplete.partial, b"fla");
        assert_eq!(
            incomplete.to_string(),
            "3 bytes read on a total of 4 expected bytes"
        );
        let error = reader.readuntil(b"x").await.unwrap_err();
        assert_eq!(error.downcast_ref::<IncompleteRead>().unwrap().partial, b"");
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_line_beyond_the_limit_is_an_error_and_stays_in_the_buffer() {
    asyncio::run(async {
        static LONG: [u8; 70_000] = [b'x'; 70_000];
        let (mut reader, _writer) = sends(&LONG).await?;
        let error = reader.readline().await.unwrap_err();
        let consumed = error.downcast_ref::<LimitOverrun>().unwrap().consumed;
        assert!(consumed > 65536);
        assert_eq!(reader.read_to_end().await?.len(), 70_000);
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_limit_can_be_set() {
    asyncio::run(async {
        static LONG: [u8; 70_000] = [b'x'; 70_000];
        let (mut reader, _writer) = sends(&LONG).await?;
        reader.set_limit(100_000);
        assert_eq!(reader.readline().await?.len(), 70_000);
        let (mut reader, _writer) = sends(b"four\nfive\n").await?;
        reader.set_limit(3);
        let error = reader.readline().await.unwrap_err();
        assert_eq!(error.downcast_ref(), Some(&LimitOverrun { consumed: 4 }));
        reader.set_limit(4);
        assert_eq!(reader.readline().await?, b"four\n");
        Ok(())
    })
    .unwrap();
}

#[test]
fn addresses_are_those_of_the_two_ends() {
    let path = std::env::temp_dir().join(format!("ropewalk-addresses-{}", std::process::id()));
    let bound = path.clone();
    asyncio::run(async move {
        let serve = async |_reader, mut writer: StreamWriter| {
            let peer = writer.peer_addr().map_err(|error| error.kind());
            writer.write(format!("{peer:?}").as_bytes());
            writer.wait_closed().await
        };
        let server = start_server(HOST, 0, serve).await?;
        let stream = TcpStream::connect(server.local_addrs()[0]).await?;
        let expected = format!("Ok({})", stream.local_addr()?);
        let (mut reader, writer) = split(stream);
        assert_eq!(writer.peer_addr()?, server.local_addrs()[0]);
        assert_eq!(String::from_utf8(reader.read_to_end().await?)?, expected);
        let server = start_unix_server(&bound, serve).await?;
        assert!(server.local_addrs().is_empty());
        let (mut reader, _writer) = open_unix_connection(&bound).await?;
        assert_eq!(reader.read_to_end().await?, b"Err(Unsupported)");
        let error = start_unix_server(&bound, serve).await.unwrap_err();
        assert_eq!(std::io::Error::from(error).kind(), ErrorKind::AddrInUse);
        Ok(())
    })
    .unwrap();
    std::fs::remove_file(path).unwrap();
}

#[test]
fn what_a_cancelled_task_writes_goes_out_after_what_it_wrote_before() {
    asyncio::run(async {
        let (here, there) = UnixStream::pair()?;
        let task = asyncio::create_task(async move {
            let (_reader, mut writer) = split(here);
            writer.write(&[1; 3_000_000]); // more than the system takes at once
            let cancelled = asyncio::sleep(seconds(3600)).await.unwrap_err();
            writer.write(&[2]);
            writer.wait_closed().await?;
            Err::<(), _>(cancelled.into())
        });
        turns(3).await?;
        let main = asyncio::current_task().unwrap();
        let mut others = asyncio::all_tasks();
        others.retain(|task| !task.is(&main));
        assert_eq!(others.len(), 1, "the writer's own is not shown");
        others.iter().for_each(|task| assert!(task.cancel()));
        let (mut reader, _writer) = split(there);
        let all = reader.read_to_end().await?;
        let (before, after) = all.split_at(3_000_000);
        assert!(before.iter().all(|&byte| byte == 1) && after == [2]);
        assert!(task.await.unwrap_err().is_cancelled());
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_stream_of_another_library_that_takes_nothing_is_an_error() {
    use std::{io, pin::Pin, task::Context, task::Poll};

    struct Full;

    impl futures_io::AsyncRead for Full {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut [u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Err(io::Error::other("broken")))
        }
    }

    impl futures_io::AsyncWrite for Full {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(0))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending // for ever, and nobody waits for it
        }
    }

    asyncio::run(async {
        let (mut reader, mut writer) = split(Full);
        writer.write(b"flag");
        let error = io::Error::from(writer.wait_closed().await.unwrap_err());
        assert_eq!(error.kind(), ErrorKind::WriteZero);
        assert_eq!(reader.readline().await.unwrap_err().to_string(), "broken");
        writer.close();
        turns(3).await
    })
    .unwrap();
}

#[test]
fn a_cancelled_read_keeps_what_has_come() {
    asyncio::run(async {
        let (reader, mut writer) = connected(|mut reader, mut writer| async move {
            writer.write(b"half a ");
            reader.readexactly(1).await?;
            writer.write(b"line\n");
            Ok(())
        })
        .await?;
        let shared = Rc::new(RefCell::new(Some(reader)));
        let slot = shared.clone();
        let task = asyncio::create_task(async move {
            let mut reader = slot.take().unwrap();
            let outcome = reader.readline().await;
            slot.replace(Some(reader));
            outcome
        });
        asyncio::sleep(Duration::from_millis(5)).await?;
        task.cancel();
        assert!(task.await.unwrap_err().is_cancelled());
        writer.write(b"x");
        let mut reader = shared.take().unwrap();
        assert_eq!(reader.readline().await?, b"half a line\n");
        Ok(())
    })
    .unwrap();
}

#[test]
fn what_is_written_goes_out_without_drain_and_drain_waits_for_a_slow_peer() {
    asyncio::run(async {
        const ALL: usize = 8_000_000;
        let (mut reader, mut writer) = connected(|mut reader, mut writer| async move {
            let all = reader.read_to_end().await?;
            writer.write(&all.len().to_be_bytes());
            Ok(())
        })
        .await?;
        writer.write(&vec![7; ALL / 2]);
        writer.drain().await?;
        writer.write(&vec![7; ALL / 2]);
        writer.write_eof(); // once all of it is out
        assert_eq!(reader.readexactly(8).await?, ALL.to_be_bytes());
        writer.close();
        assert!(writer.is_closing());
        writer.wait_closed().await?;
        writer.write(b"late");
        let error = writer.drain().await.unwrap_err();
        assert_eq!(
            error.downcast_ref::<std::io::Error>().unwrap().kind(),
            ErrorKind::BrokenPipe
        );
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_peer_that_is_gone_comes_out_of_drain() {
    asyncio::run(async {
        let (_reader, mut writer) = connected(|_reader, _writer| async { Ok(()) }).await?;
        let error = loop {
            writer.write(&[7; 100_000]);
            if let Err(error) = writer.drain().await {
                break error;
            }
            asyncio::sleep(Duration::from_millis(1)).await?;
        };
        let kind = error.downcast_ref::<std::io::Error>().unwrap().kind();
        assert!(matches!(kind, ErrorKind::BrokenPipe | ErrorKind::ConnectionReset));
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_server_listens_at_every_address_of_its_host() {
    asyncio::run(async {
        let mut expected = asyncio::get_running_loop()?.getaddrinfo("localhost", 0).await?;
        // Those that this machine has.
        expected.retain(|address| std::net::TcpListener::bind(address).is_ok());
        expected.sort();
        expected.dedup();
        let greets = async |_reader, mut writer: StreamWriter| {
            writer.write(b"flag");
            writer.wait_closed().await
        };
        let mut server = start_server("localhost", 0, greets).await?;
        let addresses = server.local_addrs().to_vec();
        let mut hosts: Vec<_> = addresses.iter().map(std::net::SocketAddr::ip).collect();
        hosts.sort();
        assert!(
            hosts
                .into_iter()
                .eq(expected.iter().map(std::net::SocketAddr::ip))
        );
        for address in &addresses {
            let (mut reader, _writer) = split(TcpStream::connect(*address).await?);
            assert_eq!(reader.read_to_end().await?, b"flag");
        }
        server.close();
        assert!(server.serve_forever().await.unwrap_err().is_cancelled());
        for address in addresses {
            assert!(TcpStream::connect(address).await.is_err(), "{address}");
        }
        Ok(())
    })
    .unwrap();
}

#[test]
fn an_empty_host_is_every_interface_and_an_address_in_use_is_named() {
    asyncio::run(async {
        let serve = async |_reader, _writer| Ok(());
        let server = start_server("", 0, serve).await?;
        let addresses = server.local_addrs();
        assert!(addresses.iter().all(|address| address.ip().is_unspecified()));
        assert!(addresses.iter().any(std::net::SocketAddr::is_ipv4));
        let port = addresses[0].port();
        open_connection("127.0.0.1", port).await?;
        let error = std::io::Error::from(start_server("", port, serve).await.unwrap_err());
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        assert!(error.to_string().contains(&format!("0.0.0.0:{port}")), "{error}");
        // One of the addresses that are set apart for examples.
        let error = std::io::Error::from(start_server("192.0.2.1", 0, serve).await.unwrap_err());
        assert_eq!(error.kind(), ErrorKind::AddrNotAvailable);
        Ok(())
    })
    .unwrap();
}

#[test]
fn several_separators_end_where_the_first_of_them_does() {
    asyncio::run(async {
        let (mut reader, _writer) = sends(b"BR\r\nCN;IND\nabcd-XabcY").await?;
        for chunk in [&b"BR\r\n"[..], b"CN;", b"IND\n"] {
            assert_eq!(reader.readuntil_any(&[b"\r\n", b";", b"\n"]).await?, chunk);
        }
        // The end decides and not the beginning.
        assert_eq!(reader.readuntil_any(&[b"abcd-", b"bc"]).await?, b"abc");
        assert_eq!(reader.readuntil_any(&[b"absent", b"-"]).await?, b"d-");
        reader.set_limit(2);
        let error = reader.readuntil_any(&[b"Y", b"Z"]).await.unwrap_err();
        assert_eq!(error.downcast_ref(), Some(&LimitOverrun { consumed: 4 }));
        assert_eq!(reader.readexactly(5).await?, b"XabcY");
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_separator_that_comes_in_pieces_is_found_beside_a_longer_one() {
    asyncio::run(async {
        let (here, there) = UnixStream::pair()?;
        let (mut reader, _writer) = split(here);
        let task = asyncio::create_task(async move { reader.readuntil_any(&[b"\r\n", b"longer"]).await });
        for piece in [&b"BR long"[..], b"ish\r", b"\nCN"] {
            turns(3).await?;
            there.write_all(piece).await?;
        }
        assert_eq!(task.await?, b"BR longish\r\n");
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_closed_server_takes_no_more_and_leaves_its_connections() {
    asyncio::run(async {
        let mut server = start_server(HOST, 0, |mut reader, mut writer| async move {
            while let line @ [_, ..] = &reader.readline().await?[..] {
                writer.write(line);
            }
            Ok(())
        })
        .await?;
        let port = server.local_addrs()[0].port();
        let (mut reader, mut writer) = open_connection(HOST, port).await?;
        writer.write(b"one\n");
        assert_eq!(reader.readline().await?, b"one\n");
        assert!(server.is_serving());
        server.close();
        assert!(!server.is_serving());
        assert!(server.serve_forever().await.unwrap_err().is_cancelled());
        assert!(open_connection(HOST, port).await.is_err());
        writer.write(b"two\n");
        assert_eq!(reader.readline().await?, b"two\n");
        Ok(())
    })
    .unwrap();
}

#[test]
fn unix_sockets_have_readers_and_writers_too() {
    let path = std::env::temp_dir().join(format!("ropewalk-streams-{}", std::process::id()));
    let bound = path.clone();
    asyncio::run(async move {
        let listener = UnixListener::bind(&bound)?;
        let (_reader, mut writer) = open_unix_connection(&bound).await?;
        let server = listener.accept().await?;
        writer.write(b"flag");
        let mut buffer = [0; 4];
        server.read_exact(&mut buffer).await?;
        assert_eq!(&buffer, b"flag");
        Ok(())
    })
    .unwrap();
    std::fs::remove_file(path).unwrap();
}

/// What to ask a reader for.
#[derive(Clone, Copy, Debug)]
enum Ask {
    Some(usize),
    Exactly(usize),
    Until(&'static [u8]),
    Line,
}

fn asks() -> impl Strategy<Value = Ask> {
    prop_oneof![
        (0..9usize).prop_map(Ask::Some),
        (0..40usize).prop_map(Ask::Exactly),
        prop::sample::select(vec![&b"\n"[..], b"ab", b"aab", b"a\na"]).prop_map(Ask::Until),
        Just(Ask::Line),
    ]
}

async fn answer(reader: &mut StreamReader, ask: Ask) -> Result<Vec<u8>> {
    match ask {
        Ask::Some(count) => reader.read(count).await,
        Ask::Exactly(count) => reader.readexactly(count).await,
        Ask::Until(separator) => reader.readuntil(separator).await,
        Ask::Line => reader.readline().await,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() })]

    #[test]
    fn however_bytes_arrive_they_come_out_in_order_and_cut_as_asked(
        parts in prop::collection::vec("[ab\n]{1,30}", 0..12),
        asks in prop::collection::vec((asks(), any::<bool>()), 0..40),
    ) {
        asyncio::run(async move {
            let all = parts.concat().into_bytes();
            let mut left = &all[..];
            let (here, there) = UnixStream::pair()?;
            let (mut reader, _writer) = split(here);
            let sender = asyncio::create_task(async move {
                for part in parts {
                    there.write_all(part.as_bytes()).await?;
                    asyncio::sleep(Duration::from_micros(1)).await?; // until the reader waits, mostly
                }
                Ok(())
            });
            for (ask, impatient) in asks {
                let mut outcome = match impatient {
                    true => asyncio::wait_for(answer(&mut reader, ask), Duration::ZERO).await,
                    false => answer(&mut reader, ask).await,
                };
                if outcome.as_ref().is_err_and(asyncio::Error::is_timeout) {
                    outcome = answer(&mut reader, ask).await; // a cancellation has lost nothing
                }
                let separator = match ask {
                    Ask::Until(separator) => separator,
                    _ => b"\n",
                };
                let found = left.windows(separator.len()).position(|window| window == separator);
                let until = found.map(|index| index + separator.len());
                let expected = match ask {
                    Ask::Some(count) => {
                        let some = outcome.as_ref().map_or(0, Vec::len);
                        assert_eq!(some == 0, count == 0 || left.is_empty());
                        Some(some).filter(|&some| some <= count)
                    }
                    Ask::Exactly(count) => Some(count).filter(|&count| count <= left.len()),
                    Ask::Until(_) => until,
                    Ask::Line => until.or(Some(left.len())),
                };
                assert_eq!(outcome.is_ok(), expected.is_some(), "{ask:?}");
                let taken = match outcome {
                    Ok(taken) => taken,
                    Err(error) => error.downcast_ref::<IncompleteRead>().unwrap().partial.clone(),
                };
                let (now, later) = left.split_at(expected.unwrap_or(left.len()));
                assert_eq!(taken, now, "{ask:?}");
                left = later;
            }
            assert_eq!(reader.read_to_end().await?, left);
            sender.await
        })
        .unwrap();
    }
}
