//! The built binary against a daemon that plays its part over a unix socket.

#[cfg(test)]
mod changes;
#[cfg(test)]
mod data;
#[cfg(test)]
mod errors;
#[cfg(test)]
mod fake;
#[cfg(test)]
mod fake_cluster;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod identity;
#[cfg(test)]
mod intent;
#[cfg(test)]
mod managers;
#[cfg(test)]
mod pages;
#[cfg(test)]
mod run;
#[cfg(test)]
mod seeing;
#[cfg(test)]
mod systemd;
#[cfg(test)]
mod terminal;
#[cfg(test)]
mod top;
