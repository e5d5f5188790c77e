//! Where tests have the daemon end as if it were killed. Builds without debug assertions have none of it.

/// Ends this process by SIGKILL if the file that `MESHD_KILL_AT` names says this step.
#[cfg(debug_assertions)]
pub(crate) fn point(step: &str) {
    use rustix::process::{Signal, getpid, kill_process};

    let Some(path) = std::env::var_os("MESHD_KILL_AT") else { return };
    if std::fs::read_to_string(path).is_ok_and(|wanted| wanted == step) {
        tracing::warn!(step, "ends here, as it was told to");
        if let Err(error) = kill_process(getpid(), Signal::KILL) {
            tracing::warn!(%error, "cannot end");
        }
    }
}

#[cfg(not(debug_assertions))]
pub(crate) fn point(_: &str) {}
