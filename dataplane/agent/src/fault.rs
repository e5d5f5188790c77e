//! Steps of what is made and undone: where tests have the daemon end as if it were killed, which builds without debug
//! assertions cannot, and what is told of work that takes long.

use crate::slow;

/// A step is done. Ends this process by SIGKILL if the file that `MESHD_KILL_AT` names says so.
pub fn point(step: &'static str) {
    slow::reached(step);
    #[cfg(debug_assertions)]
    end_at(step);
}

#[cfg(debug_assertions)]
fn end_at(step: &str) {
    use rustix::process::{Signal, getpid, kill_process};

    let Some(path) = std::env::var_os("MESHD_KILL_AT") else { return };
    if std::fs::read_to_string(path).is_ok_and(|wanted| wanted == step) {
        tracing::warn!(step, "ends here, as it was told to");
        if let Err(error) = kill_process(getpid(), Signal::KILL) {
            tracing::warn!(%error, "cannot end");
        }
    }
}
