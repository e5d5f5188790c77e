//! What container runtimes rely on, by the daemon's socket as their plugins use it.

mod attach_steps;
mod local_api;
mod owners;
