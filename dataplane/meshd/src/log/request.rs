//! The log's part of the local socket.

use std::time::Duration;

use mesh_api::v1;
use tonic::Status;

use super::Log;
use crate::config::check_log;

/// Changes what is logged, if asked to, and tells what is.
pub fn change(log: &Log, request: &v1::ChangeLogRequest) -> Result<v1::LogStatus, Status> {
    match (request.directives.as_str(), request.reset, request.for_secs) {
        ("", false, 0) => {}
        ("", true, 0) => log.reset(),
        ("", ..) | (_, true, _) => {
            return Err(Status::invalid_argument(
                "say what is to be logged, and perhaps for how long, or that the configuration counts again",
            ));
        }
        (directives, false, secs) => {
            check_log(directives).map_err(Status::invalid_argument)?;
            let time = (secs > 0).then(|| Duration::from_secs(secs.into()));
            log.change(directives, time).map_err(|error| Status::internal(format!("{error:#}")))?;
        }
    }
    Ok(status(log))
}

/// What is logged.
pub fn status(log: &Log) -> v1::LogStatus {
    let logged = log.logged();
    // A time that has begun counts whole: what is left is never told as nothing.
    let secs = |left: Duration| u32::try_from(left.as_millis().div_ceil(1_000)).unwrap_or(u32::MAX);
    v1::LogStatus {
        in_force: logged.in_force,
        configured: logged.configured,
        left_secs: logged.left.map(secs),
        place: logged.place.to_owned(),
        lost: logged.lost,
    }
}
