use std::cell::Cell;
use std::fmt;
use std::io;
use std::rc::Rc;
use std::task::Poll;

use super::transport::Transport;
use crate::asyncio::cancellable;
use crate::asyncio::error::Result;

/// How much a reader keeps at most while it looks for a separator, in bytes, if nothing else is said.
pub(super) const LIMIT: usize = 64 * 1024;

/// How much is read at a time.
const CHUNK_SIZE: usize = 64 * 1024;

thread_local! {
    /// Where it is read to first: a reader that waits needs no memory. Empty while somebody reads.
    static CHUNK: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The reading end of a connection or pipe, with a buffer (Python: `asyncio.StreamReader`).
///
/// A cancellation loses nothing: what was read and not given out stays in the buffer.
///
/// ```
/// use ropewalk::asyncio::{self, net};
///
/// asyncio::run(async {
///     let (here, there) = net::UnixStream::pair()?;
///     there.write_all(b"BR Brazil\nCN China\n0042end").await?;
///     drop(there);
///     let (mut reader, _writer) = net::split(here);
///     assert_eq!(reader.readline().await?, b"BR Brazil\n");
///     assert_eq!(reader.readuntil(b" ").await?, b"CN ");
///     assert_eq!(reader.readline().await?, b"China\n");
///     assert_eq!(reader.readexactly(4).await?, b"0042");
///     let error = reader.readexactly(4).await.unwrap_err();
///     let incomplete: &net::IncompleteRead = error.downcast_ref().unwrap();
///     assert_eq!(incomplete.partial, b"end");
///     assert!(reader.at_eof());
///     Ok(())
/// })
/// # .unwrap();
/// ```
pub struct StreamReader {
    transport: Rc<dyn Transport>,
    buffer: Vec<u8>,
    /// Where in the buffer begins what has not been given out.
    begin: usize,
    eof: bool,
    limit: usize,
}

/// The stream ended too early (Python: `asyncio.IncompleteReadError`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IncompleteRead {
    /// What came before the end.
    pub partial: Vec<u8>,
    /// How many bytes were asked for; none if that was a separator.
    pub expected: Option<usize>,
}

impl fmt::Display for IncompleteRead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.partial.len();
        match self.expected {
            Some(expected) => write!(f, "{count} bytes read on a total of {expected} expected bytes"),
            None => write!(f, "{count} bytes read on a total of undefined expected bytes"),
        }
    }
}

impl std::error::Error for IncompleteRead {}

/// There is no separator within the limit (Python: `asyncio.LimitOverrunError`). The bytes stay in the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitOverrun {
    /// How many bytes of the buffer belong to no separator.
    pub consumed: usize,
}

impl fmt::Display for LimitOverrun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("separator is not found, and chunk exceed the limit")
    }
}

impl std::error::Error for LimitOverrun {}

impl StreamReader {
    pub(super) fn new(transport: Rc<dyn Transport>, limit: usize) -> Self {
        Self {
            transport,
            buffer: Vec::new(),
            begin: 0,
            eof: false,
            limit,
        }
    }

    /// Sets how much [`readline`](StreamReader::readline) and [`readuntil`](StreamReader::readuntil) keep at most while they look
    /// for the separator, in bytes; 64 KiB if not set (Python: `limit=`).
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// What was read and not given out.
    fn rest(&self) -> &[u8] {
        &self.buffer[self.begin..]
    }

    /// Reads more into the buffer; false at the end of the stream.
    async fn fill(&mut self) -> io::Result<bool> {
        if self.begin > self.buffer.len() / 2 {
            self.buffer.drain(..self.begin);
            self.begin = 0;
        }
        if !self.eof {
            let read = std::future::poll_fn(|cx| {
                let mut chunk = CHUNK.take();
                chunk.resize(CHUNK_SIZE, 0);
                let read = self.transport.poll_read(cx, &mut chunk);
                if let Poll::Ready(Ok(count)) = read {
                    self.buffer.extend_from_slice(&chunk[..count]);
                }
                CHUNK.set(chunk);
                read
            });
            self.eof = cancellable(read).await?? == 0;
        }
        Ok(!self.eof)
    }

    fn take(&mut self, count: usize) -> Vec<u8> {
        if (self.begin, self.buffer.len()) == (0, count) {
            return std::mem::take(&mut self.buffer);
        }
        let taken = self.rest()[..count].to_vec();
        self.begin += count;
        if self.begin == self.buffer.len() {
            self.buffer.clear();
            self.begin = 0;
        }
        taken
    }

    /// Reads what is there, at most `count` bytes; nothing at the end of the stream.
    ///
    /// # Errors
    /// The system's; the cancellation of the task.
    pub async fn read(&mut self, count: usize) -> Result<Vec<u8>> {
        if self.rest().is_empty() && count > 0 {
            self.fill().await?;
        }
        Ok(self.take(count.min(self.rest().len())))
    }

    /// Reads all that comes until the end of the stream (Python: `read(-1)`).
    ///
    /// # Errors
    /// As [`read`](StreamReader::read).
    pub async fn read_to_end(&mut self) -> Result<Vec<u8>> {
        self.fill_to_end().await?;
        Ok(self.take(self.rest().len()))
    }

    /// Reads all that comes into the buffer.
    pub(in crate::asyncio) async fn fill_to_end(&mut self) -> Result<()> {
        while self.fill().await? {}
        Ok(())
    }

    /// Reads exactly `count` bytes.
    ///
    /// # Errors
    /// As [`read`](StreamReader::read); [`IncompleteRead`], with what there was, if the stream ends before.
    pub async fn readexactly(&mut self, count: usize) -> Result<Vec<u8>> {
        while self.rest().len() < count {
            if !self.fill().await? {
                let partial = self.take(self.rest().len());
                let expected = Some(count);
                return Err(IncompleteRead { partial, expected }.into());
            }
        }
        Ok(self.take(count))
    }

    /// Reads up to the first `separator`, which is the end of what is returned.
    ///
    /// # Errors
    /// As [`read`](StreamReader::read); [`IncompleteRead`], with what there was, if the stream ends before; [`LimitOverrun`] if there
    /// is none within the limit.
    ///
    /// # Panics
    /// For an empty separator.
    pub async fn readuntil(&mut self, separator: &[u8]) -> Result<Vec<u8>> {
        self.readuntil_any(&[separator]).await
    }

    /// The same for several separators: up to the end that comes first (Python 3.13: `readuntil` of a tuple).
    ///
    /// # Errors
    /// As [`readuntil`](StreamReader::readuntil).
    ///
    /// # Panics
    /// For no separator, or an empty one.
    pub async fn readuntil_any(&mut self, separators: &[&[u8]]) -> Result<Vec<u8>> {
        let lengths = separators.iter().map(|separator| separator.len());
        let longest = lengths
            .clone()
            .max()
            .expect("there should be at least one separator");
        assert!(
            lengths.min() > Some(0),
            "the separator should be at least one byte"
        );
        let mut searched = 0;
        loop {
            let rest = &self.rest()[searched..];
            let found = separators.iter().filter_map(|separator| {
                let begin = memchr::memmem::find(rest, separator)? + searched;
                Some((begin, begin + separator.len()))
            });
            let found = found.min_by_key(|(_, end)| *end);
            // The beginning of a separator may be the end of the buffer.
            searched = (self.rest().len() + 1).saturating_sub(longest);
            let consumed = found.map_or(searched, |(begin, _)| begin);
            if consumed > self.limit {
                return Err(LimitOverrun { consumed }.into());
            }
            if let Some((_, end)) = found {
                return Ok(self.take(end));
            }
            if !self.fill().await? {
                let partial = self.take(self.rest().len());
                return Err(IncompleteRead {
                    partial,
                    expected: None,
                }
                .into());
            }
        }
    }

    /// Reads a line, the `\n` included; without it at the end of the stream, and nothing after that.
    ///
    /// # Errors
    /// As [`read`](StreamReader::read); [`LimitOverrun`] if the line is longer than the limit.
    pub async fn readline(&mut self) -> Result<Vec<u8>> {
        match self.readuntil(b"\n").await {
            Err(error) => match error.downcast_ref::<IncompleteRead>() {
                Some(incomplete) => Ok(incomplete.partial.clone()),
                None => Err(error),
            },
            line => line,
        }
    }

    /// Whether the stream has ended and the buffer is empty.
    pub fn at_eof(&self) -> bool {
        self.eof && self.rest().is_empty()
    }
}

impl fmt::Debug for StreamReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let eof = if self.eof { " eof" } else { "" };
        write!(f, "<StreamReader {} bytes{eof}>", self.rest().len())
    }
}
