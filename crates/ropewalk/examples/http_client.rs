//! An HTTP client by hyper on the loop: all pages at the same time, one task a connection.
//!
//! ```sh
//! cargo run --example http_client
//! cargo run --example http_client -- http://example.org/ http://example.com/
//! ```
//!
//! Without URLs it asks a server of its own, by hyper as well.

use std::convert::Infallible;

use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::HOST;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, Uri, client, server};
use ropewalk::asyncio::{self, cancellable, net};
use smol_hyper::rt::FuturesIo;

async fn get(url: String) -> asyncio::Result<(String, StatusCode, Bytes)> {
    let uri: Uri = url.parse()?;
    let (Some(host), Some(authority)) = (uri.host(), uri.authority()) else {
        return Err(std::io::Error::other(format!("no URL: {url}")).into());
    };
    let stream = net::create_connection(host, uri.port_u16().unwrap_or(80)).await?;
    let handshake = client::conn::http1::handshake(FuturesIo::new(stream));
    let (mut sender, connection) = cancellable(handshake).await??;
    let connection = asyncio::create_task(async move { Ok(cancellable(connection).await??) });

    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::get(path)
        .header(HOST, authority.as_str())
        .body(Empty::<Bytes>::new())?;
    let response = cancellable(sender.send_request(request)).await??;
    let status = response.status();
    let body = cancellable(response.into_body().collect()).await??.to_bytes();
    drop(sender); // it ends the connection
    connection.await?;
    Ok((url, status, body))
}

async fn page(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (status, text) = match request.uri().path() {
        "/hello" => (StatusCode::OK, "hello, world"),
        _ => (StatusCode::NOT_FOUND, "no such page"),
    };
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    Ok(response)
}

async fn serve(listener: net::TcpListener) -> asyncio::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        let connection =
            server::conn::http1::Builder::new().serve_connection(FuturesIo::new(stream), service_fn(page));
        drop(asyncio::create_task(async move {
            Ok(cancellable(connection).await??)
        }));
    }
}

#[ropewalk::main]
async fn main() -> asyncio::Result<()> {
    let mut urls: Vec<String> = std::env::args().skip(1).collect();
    if urls.is_empty() {
        let listener = net::TcpListener::bind("127.0.0.1:0".parse()?)?;
        let address = listener.local_addr()?;
        drop(asyncio::create_task(serve(listener)));
        urls = ["hello", "flag"]
            .map(|page| format!("http://{address}/{page}"))
            .into();
    }
    for (url, status, body) in asyncio::gather(urls.into_iter().map(get).collect::<Vec<_>>()).await? {
        println!("{url}: {status}, {} bytes", body.len());
    }
    Ok(())
}
