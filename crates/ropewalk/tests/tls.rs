//! TLS by futures-rustls over the loop's own sockets.
#![cfg(all(target_os = "linux", not(loom)))]
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use futures_rustls::rustls::pki_types::{PrivateKeyDer, ServerName};
use futures_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use futures_rustls::{TlsAcceptor, TlsConnector};
use ropewalk::asyncio::{self, cancellable, net};
use smol::io::{AsyncReadExt, AsyncWriteExt};

/// A server whose certificate is for `localhost`, and a client that trusts it, or nobody.
fn configurations(trusts: bool) -> (TlsAcceptor, TlsConnector) {
    let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = signed.cert.der().clone();
    let key = PrivateKeyDer::try_from(signed.signing_key.serialize_der()).unwrap();
    let server = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    let mut roots = RootCertStore::empty();
    if trusts {
        roots.add(certificate).unwrap();
    }
    let client = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (Arc::new(server).into(), Arc::new(client).into())
}

#[test]
fn client_and_server_on_one_loop_say_more_to_each_other_than_a_socket_holds() {
    const LENGTH: usize = 3_000_000;
    let (acceptor, connector) = configurations(true);
    asyncio::run(async move {
        let listener = net::TcpListener::bind("127.0.0.1:0".parse()?)?;
        let port = listener.local_addr()?.port();
        let server = asyncio::create_task(async move {
            let (stream, _) = listener.accept().await?;
            let mut stream = cancellable(acceptor.accept(stream)).await??;
            let mut question = Vec::new();
            cancellable(stream.read_to_end(&mut question)).await??;
            question.reverse();
            cancellable(stream.write_all(&question)).await??;
            cancellable(stream.close()).await??;
            Ok(())
        });
        let stream = net::create_connection("localhost", port).await?;
        let name = ServerName::try_from("localhost")?;
        let mut stream = cancellable(connector.connect(name, stream)).await??;
        let question: Vec<u8> = (0..LENGTH).map(|number| (number % 251) as u8).collect();
        cancellable(stream.write_all(&question)).await??;
        cancellable(stream.close()).await??;
        let mut answer = Vec::new();
        cancellable(stream.read_to_end(&mut answer)).await??;
        assert!(answer.iter().rev().eq(&question));
        server.await
    })
    .unwrap();
}

#[test]
fn reader_and_writer_work_over_tls() {
    const LENGTH: usize = 1_000_000;
    let (acceptor, connector) = configurations(true);
    asyncio::run(async move {
        let (here, there) = net::UnixStream::pair()?;
        let server = asyncio::create_task(async move {
            let (mut reader, mut writer) = net::split(cancellable(acceptor.accept(there)).await??);
            let line = reader.readline().await?;
            assert_eq!(line, b"flag?\n");
            writer.write(&line.repeat(LENGTH / 6));
            writer.drain().await?;
            writer.write(b"end\n");
            assert_eq!(reader.read_to_end().await?, b"thanks");
            writer.close();
            writer.wait_closed().await
        });
        let name = ServerName::try_from("localhost")?;
        let (mut reader, mut writer) = net::split(cancellable(connector.connect(name, here)).await??);
        assert!(writer.peer_addr().is_err());
        writer.write(b"flag?\n");
        for _ in 0..LENGTH / 6 {
            assert_eq!(reader.readline().await?, b"flag?\n");
        }
        assert_eq!(reader.readline().await?, b"end\n");
        writer.write(b"thanks");
        writer.write_eof();
        assert_eq!(
            reader.read_to_end().await?,
            b"",
            "an end that is one, not a broken connection"
        );
        server.await
    })
    .unwrap();
}

#[test]
fn a_certificate_that_nobody_signed_is_an_error_on_both_sides() {
    let (acceptor, connector) = configurations(false);
    asyncio::run(async move {
        let (here, there) = net::UnixStream::pair()?;
        let server =
            asyncio::create_task(async move { Ok(cancellable(acceptor.accept(there)).await?.err()) });
        let name = ServerName::try_from("localhost")?;
        let error = cancellable(connector.connect(name, here)).await?.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
        assert!(error.to_string().contains("UnknownIssuer"), "{error}");
        assert!(server.await?.unwrap().to_string().contains("UnknownCA"));
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_handshake_can_be_cancelled() {
    let (_, connector) = configurations(true);
    asyncio::run(async move {
        let (here, _there) = net::UnixStream::pair()?; // who says nothing
        let handshake = asyncio::create_task(async move {
            let name = ServerName::try_from("localhost")?;
            cancellable(connector.connect(name, here)).await??;
            Ok(())
        });
        asyncio::sleep(std::time::Duration::ZERO).await?;
        handshake.cancel();
        assert!(handshake.await.unwrap_err().is_cancelled());
        Ok(())
    })
    .unwrap();
}
