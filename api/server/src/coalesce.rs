//! Small frames to one client go out together.
//!
//! h2 writes each frame of data by itself, and each write is a TLS record, a system call and a wake-up at the other end: of a change that
//! fifty watches of one connection are sent, fifty. Here they gather: a connection that writes and writes again is let wait for one turn of
//! what else is ready to run, and what all of that adds goes with it. The first few writes after a rest go at once: waiting a turn
//! wakes another thread, which costs a lone answer more than it can gain.

use bytes::{Buf, BytesMut};
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// What may wait; past it a connection's writes go on only as fast as its client reads.
const WAITING_BYTES_MAX: usize = 64 << 10;
/// Without a write for so long, it has rested.
const REST: Duration = Duration::from_micros(500);
/// Writes after a rest that go at once.
const AT_ONCE: u32 = 4;

/// A connection's stream whose writes wait until `Sending` sends them.
pub(crate) struct Coalesced<T>(Arc<Mutex<Inner<T>>>);

struct Inner<T> {
    stream: T,
    waiting: BytesMut,
    /// Nobody sends for it any more: a flush does.
    alone: bool,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Coalesced<T> {
    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Inner<T> {
    /// Sends what waits.
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.waiting.has_remaining() {
            let sent = ready!(Pin::new(&mut self.stream).poll_write(context, &self.waiting))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.waiting.advance(sent);
        }
        // An idle connection holds no memory for it.
        self.waiting = BytesMut::new();
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.waiting.len() < WAITING_BYTES_MAX {
            return Poll::Ready(Ok(()));
        }
        self.poll_send(context)
    }
}

/// A stream for a connection to write to, and what sends it while it runs that connection.
pub(crate) fn coalesced<T>(stream: T) -> (Coalesced<T>, Sending<T>) {
    let inner = Arc::new(Mutex::new(Inner {
        stream,
        waiting: BytesMut::new(),
        alone: false,
    }));
    (Coalesced(inner.clone()), Sending(Coalesced(inner)))
}

/// The other end of a `Coalesced`.
pub(crate) struct Sending<T>(Coalesced<T>);

impl<T: AsyncRead + AsyncWrite + Unpin> Sending<T> {
    /// Runs the connection, and sends what it writes.
    pub async fn run<C: Future>(self, connection: C) -> C::Output {
        let mut connection = pin!(connection);
        let mut waited = false;
        let (mut in_a_row, mut sent) = (0, Instant::now());
        let output = std::future::poll_fn(|context| {
            let polled = connection.as_mut().poll(context);
            let mut inner = self.0.lock();
            if polled.is_ready() {
                // It was shut down, with all sent; or upgraded, and is another task's now, which flushes as it likes.
                inner.alone = true;
                let _ = inner.poll_send(context);
            } else if inner.waiting.is_empty() {
                waited = false;
            } else if !waited && in_a_row >= AT_ONCE && sent.elapsed() < REST {
                waited = true;
                context.waker().wake_by_ref();
            } else if inner.poll_send(context).is_ready() {
                // The connection itself sees what went wrong, as it reads or writes on.
                waited = false;
                in_a_row = if sent.elapsed() < REST {
                    in_a_row + 1
                } else {
                    1
                };
                sent = Instant::now();
            }
            polled
        });
        output.await
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for Coalesced<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.lock().stream).poll_read(context, into)
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Coalesced<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut inner = self.lock();
        ready!(inner.poll_room(context))?;
        inner.waiting.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut inner = self.lock();
        ready!(inner.poll_room(context))?;
        slices
            .iter()
            .for_each(|slice| inner.waiting.extend_from_slice(slice));
        Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.lock();
        match inner.alone {
            true => inner.poll_send(context),
            false => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.lock();
        ready!(inner.poll_send(context))?;
        Pin::new(&mut inner.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::task::yield_now;

    /// What one read of the other end gives.
    async fn read(end: &mut DuplexStream) -> usize {
        let mut into = vec![0; 1 << 20];
        end.read(&mut into).await.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_written_in_a_row_goes_together() {
        const WRITES: usize = 100;
        let (stream, mut end) = duplex(1 << 20);
        let (mut stream, sending) = coalesced(stream);
        let serving = tokio::spawn(sending.run(async move {
            for _ in 0..WRITES {
                stream.write_all(&[7; 10]).await.unwrap();
                stream.flush().await.unwrap();
                yield_now().await;
            }
            // Stays open, and is polled no more.
            std::future::pending::<()>().await;
        }));
        let mut reads = Vec::new();
        while reads.iter().sum::<usize>() < 10 * WRITES {
            reads.push(read(&mut end).await);
        }
        serving.abort();
        let (first, rest) = reads.split_at(AT_ONCE as usize);
        assert!(first.iter().all(|read| *read == 10), "{first:?}");
        // Each waits one turn, and here a turn brings one more.
        assert_eq!(rest.len(), (WRITES - first.len()) / 2, "{rest:?}");
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_is_waited_for() {
        let (stream, mut end) = duplex(1 << 10);
        let (mut stream, sending) = coalesced(stream);
        let serving = tokio::spawn(sending.run(async move {
            for _ in 0..1_000 {
                stream.write_all(&[7; 1_000]).await.unwrap();
                yield_now().await;
            }
            stream.shutdown().await.unwrap();
        }));
        for _ in 0..10_000 {
            yield_now().await;
        }
        assert!(!serving.is_finished(), "a megabyte was taken for sent");
        let mut all = Vec::new();
        end.read_to_end(&mut all).await.unwrap();
        assert_eq!(all.len(), 1_000_000);
        serving.await.unwrap();
    }

    #[tokio::test]
    async fn what_outlives_the_connection_flushes_itself() {
        let (stream, mut end) = duplex(1 << 20);
        let (mut stream, sending) = coalesced(stream);
        let upgrading = async {
            stream.write_all(b"101").await.unwrap();
            stream
        };
        let mut upgraded = sending.run(upgrading).await;
        assert_eq!(read(&mut end).await, 3);
        upgraded.write_all(b"more").await.unwrap();
        upgraded.flush().await.unwrap();
        assert_eq!(read(&mut end).await, 4);
    }

    #[tokio::test]
    async fn a_client_that_went_away_ends_it() {
        let (stream, end) = duplex(1 << 10);
        let (mut stream, sending) = coalesced(stream);
        drop(end);
        let read = sending.run(async {
            stream.write_all(b"hello").await.unwrap();
            yield_now().await;
            yield_now().await;
            stream.read_u8().await
        });
        assert!(read.await.is_err());
    }
}
