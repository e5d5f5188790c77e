//! The plugin as runtimes run it, beside a daemon with canned answers: the specification's operations, examples and
//! errors.

#[cfg(test)]
mod adding;
#[cfg(test)]
mod chains;
#[cfg(test)]
mod fake;
#[cfg(test)]
mod others;
#[cfg(test)]
mod plugin;
#[cfg(test)]
mod refusals;
