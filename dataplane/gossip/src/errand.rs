//! Something that one member asks of another's daemon, beside the core: bytes there and bytes back, on one TCP connection,
//! sealed as all else is. Nobody but members is served. Whoever has seen a question can ask it again, so what is asked
//! for must do no harm.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, OnceLock},
    time::Duration,
};

use thiserror::Error;
use tokio::{net::TcpStream, sync::Semaphore, time::timeout};
use tracing::{debug, trace};

use crate::{
    Sealer,
    stream::{self, StreamError},
};

/// In the place of a packet's version.
const QUESTION: u8 = 0xfd;
const ANSWER: u8 = 0xfc;
/// A kind and a number that ties an answer to its question.
const HEAD: usize = 9;
/// Questions that are answered at a time.
const SLOTS: usize = 4;
/// How long an answer may take.
const WAIT: Duration = Duration::from_secs(5);

/// Answers questions.
pub type Answerer = Arc<dyn Fn(Vec<u8>) -> Pin<Box<dyn Future<Output = Vec<u8>> + Send>> + Send + Sync>;

/// Why there is no answer. The other may have done what was asked all the same.
#[derive(Debug, Error)]
pub enum ErrandError {
    /// The way there or back.
    #[error("no connection to {to} (TCP)")]
    Connection {
        /// The other's gossip address.
        to: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// It closed the connection: it is busy, or of a release without such questions.
    #[error("{0} does not answer: it is busy, or its meshd is of another release")]
    Closed(SocketAddr),
    /// Nothing came.
    #[error("{to} did not answer within {} s", WAIT.as_secs())]
    Silent {
        /// The other's gossip address.
        to: SocketAddr,
    },
}

/// What is asked of this member.
#[derive(Default)]
pub(crate) struct Errands {
    answerer: OnceLock<Answerer>,
    slots: OnceLock<Arc<Semaphore>>,
}

/// Whether an opened message is a question and not the core's.
pub(crate) fn is_question(message: &[u8]) -> bool {
    message.first() == Some(&QUESTION)
}

impl Errands {
    /// Has questions answered from now on; the first one stays.
    pub(crate) fn answer_by(&self, answerer: Answerer) {
        if self.answerer.set(answerer).is_err() {
            debug!("questions of other members are answered already");
        }
    }

    /// Answers a question on its connection.
    pub(crate) async fn serve(&self, message: Vec<u8>, connection: TcpStream, sealer: &Sealer) {
        let slots = self.slots.get_or_init(|| Arc::new(Semaphore::new(SLOTS)));
        let (Some(answerer), Ok(_slot)) = (self.answerer.get(), slots.try_acquire()) else { return };
        let Some((head, question)) = message.split_at_checked(HEAD) else { return };
        let answered = async {
            let mut answer = head.to_vec();
            answer[0] = ANSWER;
            answer.extend(answerer(question.to_vec()).await);
            stream::write(connection, sealer, &answer).await
        };
        match timeout(WAIT, answered).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => trace!(%error, "a question of another member was not answered"),
            Err(_) => debug!("a question of another member took too long"),
        }
    }
}

/// Asks another member.
pub(crate) async fn ask(to: SocketAddr, question: &[u8], sealer: &Sealer) -> Result<Vec<u8>, ErrandError> {
    let mut message = vec![QUESTION];
    message.extend(rand::random::<[u8; HEAD - 1]>());
    let number = message[1..].to_vec();
    message.extend_from_slice(question);
    let asked = async {
        let failed = |source| ErrandError::Connection { to, source };
        let mut connection = TcpStream::connect(to).await.map_err(failed)?;
        let closed = |error| match error {
            StreamError::Io(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => failed(error),
            _ => ErrandError::Closed(to),
        };
        stream::write(&mut connection, sealer, &message).await.map_err(closed)?;
        stream::read(&mut connection, sealer).await.map_err(closed)
    };
    let mut answer = timeout(WAIT, asked).await.map_err(|_| ErrandError::Silent { to })??;
    if answer.first() != Some(&ANSWER) || answer.get(1..HEAD) != Some(&number[..]) {
        return Err(ErrandError::Closed(to));
    }
    Ok(answer.split_off(HEAD))
}
