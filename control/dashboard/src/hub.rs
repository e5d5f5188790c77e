//! One board for everybody who looks, made anew at most once a second.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::Mutex;

use crate::{Change, Refusal, Source, board::Board};

/// How old a board may be.
const AGE: Duration = Duration::from_millis(900);

/// See the module.
pub(crate) struct Hub {
    source: Arc<dyn Source>,
    held: Mutex<Option<(Instant, Arc<Board>)>>,
}

impl Hub {
    /// Of a source that nobody has asked yet.
    pub fn new(source: Arc<dyn Source>) -> Self {
        Self { source, held: Mutex::new(None) }
    }

    /// The board of now. Whoever asks while it is made gets the same.
    pub async fn board(&self) -> Arc<Board> {
        let mut held = self.held.lock().await;
        if let Some((made, board)) = held.as_ref()
            && made.elapsed() < AGE
        {
            return board.clone();
        }
        let board = Arc::new(Board::new(self.source.model().await));
        *held = Some((Instant::now(), board.clone()));
        board
    }

    /// Makes a change; the next board shows it.
    pub async fn change(&self, change: Change) -> Result<String, Refusal> {
        let done = self.source.change(change).await;
        *self.held.lock().await = None;
        done
    }
}
