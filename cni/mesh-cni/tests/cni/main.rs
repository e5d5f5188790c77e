//! The plugin as runtimes run it, beside a daemon with canned answers: the specification's operations, examples and
//! errors.

mod adding;
mod chains;
mod fake;
mod others;
mod plugin;
mod refusals;
