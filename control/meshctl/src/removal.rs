//! Removing one or several things.

use std::future::Future;

use anyhow::{Context as _, Result};
use mesh_api::v1::{RemoveRequest, RemoveResponse};

use crate::{context::Context, failure::Failure, report::Removed};

/// Removes each of `references` by `remove`, if it has the expected version, goes on after a refusal, and tells the names of those that went.
pub async fn each<F>(
    context: &Context,
    kind: &str,
    references: Vec<String>,
    expected_version: Option<u64>,
    mut remove: impl FnMut(RemoveRequest) -> F,
) -> Result<()>
where
    F: Future<Output = Result<RemoveResponse, Failure>>,
{
    one_version(kind, &references, expected_version)?;
    let mut removed = Vec::new();
    let mut errors = Vec::new();
    for reference in references {
        let what = format!("cannot remove {kind} {reference}");
        match remove(RemoveRequest { reference, expected_version }).await {
            Ok(RemoveResponse { id, name }) => removed.push(Removed { id, name }),
            Err(failure) => errors.push(anyhow::Error::from(failure).context(what)),
        }
    }
    if context.is_for_programs() || !removed.is_empty() {
        let names = |removed: &Vec<Removed>| removed.iter().map(|one| format!("{}\n", one.name)).collect();
        context.show(&removed, names).context("cannot tell what was removed")?;
    }
    match errors.len() {
        0 => Ok(()),
        1 => errors.pop().map_or(Ok(()), Err),
        _ => Err(Failure::Several(errors).into()),
    }
}

/// Refuses one version for several things.
pub fn one_version(kind: &str, references: &[String], expected: Option<u64>) -> Result<(), Failure> {
    match expected {
        Some(_) if references.len() > 1 => {
            Err(Failure::Usage(format!("--if-version is the version of one {kind}; name just that one")))
        }
        _ => Ok(()),
    }
}
