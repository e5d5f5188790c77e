//! A message over TCP: a random stream id, then sealed chunks, each bound to its place in this stream.
//!
//! Each chunk is opened before the next is read, and room for it is made only when it names a key of the ring: a stranger makes
//! a member hold some bytes, and whoever has seen a key's id one chunk.

use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::{MAX_STREAM, SealError, Sealer, seal::OVERHEAD};

const CHUNK: usize = 64 << 10;
const ID: usize = 16;

/// Why a stream was given up.
#[derive(Debug, Error)]
pub(crate) enum StreamError {
    #[error("the connection failed")]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Seal(#[from] SealError),
    #[error("the message is longer than {MAX_STREAM} bytes")]
    TooLong,
}

fn context(id: &[u8; ID], index: u32, last: u8) -> Vec<u8> {
    let mut context = b"tcp".to_vec();
    context.extend_from_slice(id);
    context.extend_from_slice(&index.to_be_bytes());
    context.push(last);
    context
}

pub(crate) async fn write(
    mut to: impl AsyncWrite + Unpin,
    sealer: &Sealer,
    message: &[u8],
) -> Result<(), StreamError> {
    if message.len() > MAX_STREAM {
        return Err(StreamError::TooLong);
    }
    let id: [u8; ID] = rand::random();
    to.write_all(&id).await?;
    let mut chunks = message.chunks(CHUNK).peekable();
    let mut index = 0;
    while let Some(chunk) = chunks.next() {
        let last = u8::from(chunks.peek().is_none());
        let sealed = sealer.seal(chunk, &context(&id, index, last))?;
        let mut frame = vec![last];
        frame.extend_from_slice(&(sealed.len() as u32).to_be_bytes());
        frame.extend_from_slice(&sealed);
        to.write_all(&frame).await?;
        index += 1;
    }
    to.shutdown().await?;
    Ok(())
}

pub(crate) async fn read(mut from: impl AsyncRead + Unpin, sealer: &Sealer) -> Result<Vec<u8>, StreamError> {
    let mut id = [0; ID];
    from.read_exact(&mut id).await?;
    let mut message = Vec::new();
    for index in 0.. {
        let last = from.read_u8().await?;
        let len = from.read_u32().await? as usize;
        if !(OVERHEAD..=CHUNK + OVERHEAD).contains(&len) {
            return Err(SealError::Malformed.into());
        }
        let mut beginning = [0; OVERHEAD];
        from.read_exact(&mut beginning).await?;
        sealer.knows(&beginning)?;
        let mut sealed = vec![0; len];
        sealed[..OVERHEAD].copy_from_slice(&beginning);
        from.read_exact(&mut sealed[OVERHEAD..]).await?;
        message.extend_from_slice(sealer.open_in_place(&mut sealed, &context(&id, index, last))?);
        if message.len() > MAX_STREAM {
            return Err(StreamError::TooLong);
        }
        if last == 1 {
            break;
        }
    }
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::KeyRing;
    use mesh_types::ClusterId;

    fn sealer() -> Sealer {
        Sealer::new(ClusterId::from_u128(1), &KeyRing::new(vec![[1; 32]]).unwrap())
    }

    async fn written(message: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(&mut bytes, &sealer(), message).await.unwrap();
        bytes
    }

    #[tokio::test]
    async fn messages_come_whole_or_not_at_all() {
        for len in [1, CHUNK, CHUNK + 1, 5 * CHUNK] {
            let message = vec![7; len];
            let bytes = written(&message).await;
            assert_eq!(read(bytes.as_slice(), &sealer()).await.unwrap(), message);
            assert!(read(&bytes[..bytes.len() - 1], &sealer()).await.is_err());
        }
    }

    #[tokio::test]
    async fn chunks_cannot_be_moved() {
        let one = written(&[1; 10]).await;
        let other = written(&[2; 10]).await;
        let mixed = [&one[..ID], &other[ID..]].concat();
        assert!(matches!(read(mixed.as_slice(), &sealer()).await, Err(StreamError::Seal(SealError::Forged))));
    }

    #[tokio::test]
    async fn a_stranger_is_refused_by_its_first_bytes() {
        let other = Sealer::new(ClusterId::from_u128(1), &KeyRing::new(vec![[2; 32]]).unwrap());
        let mut bytes = Vec::new();
        write(&mut bytes, &other, &[1; 1000]).await.unwrap();
        // What follows need not come, nor is there room for it.
        let first = &bytes[..ID + 5 + OVERHEAD];
        assert!(matches!(read(first, &sealer()).await, Err(StreamError::Seal(SealError::UnknownKey))));
    }

    #[tokio::test]
    async fn lengths_are_bounded() {
        let mut bytes = vec![0; ID + 1];
        bytes.extend_from_slice(&u32::MAX.to_be_bytes());
        assert!(matches!(
            read(bytes.as_slice(), &sealer()).await,
            Err(StreamError::Seal(SealError::Malformed))
        ));
        assert!(matches!(
            write(Vec::new(), &sealer(), &vec![0; MAX_STREAM + 1]).await,
            Err(StreamError::TooLong)
        ));
    }
}
