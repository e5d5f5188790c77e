//! Calls to a manager and what becomes of them.

use std::time::Duration;

use thiserror::Error;

/// How long a lease or a leave may take, a new leader's election included.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a call to a manager failed.
#[derive(Debug, Error)]
pub enum SessionError {
    /// No manager is reachable; nothing changed.
    #[error("no manager is reachable ({0}); tasks that run keep running, changes have to wait")]
    NoManager(String),
    /// The manager refused; nothing changed.
    #[error("{0}")]
    Refused(String),
    /// It is not known whether the call had its effect.
    #[error("the manager did not answer: {0}")]
    Failed(String),
}

/// What a call answers, or why it does not.
pub(super) async fn call<T>(
    rpc: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<tonic::Response<T>, SessionError> {
    match tokio::time::timeout(CALL_TIMEOUT, rpc).await {
        Ok(Ok(response)) => Ok(response),
        Ok(Err(status)) => Err(match status.code() {
            tonic::Code::Unavailable => SessionError::NoManager(status.message().to_owned()),
            tonic::Code::Unknown | tonic::Code::Internal | tonic::Code::DeadlineExceeded => {
                SessionError::Failed(status.message().to_owned())
            }
            _ => SessionError::Refused(status.message().to_owned()),
        }),
        Err(_) => Err(SessionError::Failed(format!("no answer within {} s", CALL_TIMEOUT.as_secs()))),
    }
}

/// Characters of [`one_line`]: as much as somebody may still read.
const LINE: usize = 3000;

/// An error with its sources on one line, without repetitions and the transport's own name for them. What is too long is
/// cut in the middle: the end tells the cause.
pub fn one_line(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = match error.to_string() {
            // What tokio calls a time that is over.
            more if more == "deadline has elapsed" => "no answer in time".to_owned(),
            more => more,
        };
        if !text.contains(&more) && more != "transport error" {
            text = format!("{text}: {more}");
        }
        source = error.source();
    }
    let count = text.chars().count();
    if count <= LINE {
        return text;
    }
    let head: String = text.chars().take(LINE / 2).collect();
    let tail: String = text.chars().skip(count - LINE / 2).collect();
    format!("{head} ... {tail}")
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn a_line_fits_into_an_answer() {
        let error = io::Error::other(format!("{}the cause", "x".repeat(100_000)));
        let line = one_line(&error);
        assert!(line.len() < LINE + 10 && line.ends_with("the cause"), "{}", line.len());
    }
}
