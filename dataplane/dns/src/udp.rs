//! Queries in datagrams.

use std::{
    cell::Cell,
    io,
    net::SocketAddrV4,
    os::fd::AsFd,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use mesh_netlink::BATCH;
use tokio::{
    io::Interest,
    net::UdpSocket,
    runtime::Handle,
    task::{JoinSet, yield_now},
    time::sleep,
};

use crate::{
    desk::{Desk, Left},
    respond::Transport,
    stats::count,
    thread::{Buffers, lock},
};

/// Questions of one task being forwarded at once; more are told SERVFAIL.
const MOST_FORWARDS: usize = 256;
/// Before going on after an error that may come again at once.
const BREATH: Duration = Duration::from_millis(20);

/// Serves until it is dropped, and the socket closed with it. Questions are forwarded on `others`.
pub(crate) async fn serve(socket: UdpSocket, desk: Arc<Desk>, buffers: Arc<Mutex<Buffers>>, others: Handle) {
    let mut forwards = JoinSet::new();
    loop {
        tokio::select! {
            ready = socket.readable() => {
                match ready.and_then(|()| turn(&socket, &desk, &buffers, &mut forwards, &others)) {
                    // There may be more: the other tasks' turn first.
                    Ok(BATCH..) => yield_now().await,
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => {
                        tracing::debug!(%error, "receive failed");
                        sleep(BREATH).await;
                    }
                }
            }
            Some(done) = forwards.join_next(), if !forwards.is_empty() => {
                let Ok((response, client)) = done else { continue };
                send(&socket, &buffers, &response, client);
            }
        }
    }
}

/// Answers what has arrived, at most [`BATCH`] queries, and tells how many.
fn turn(
    socket: &UdpSocket,
    desk: &Arc<Desk>,
    buffers: &Mutex<Buffers>,
    forwards: &mut JoinSet<(Vec<u8>, SocketAddrV4)>,
    others: &Handle,
) -> io::Result<usize> {
    let mut buffers = lock(buffers);
    let Buffers { inbox, outbox } = &mut *buffers;
    let received = Cell::new(0);
    let tried = socket.try_io(Interest::READABLE, || {
        received.set(inbox.receive(socket.as_fd())?);
        // Fewer than could have come: the socket is empty until it is told to be readable again.
        if received.get() < BATCH { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
    });
    if received.get() == 0 {
        return tried.map(|()| 0);
    }
    // One look at the clock before and one after for all of them: queries of a batch wait for each other.
    let begun = Instant::now();
    let mut answered = 0;
    let mut turn = desk.turn();
    for datagram in inbox.datagrams() {
        if datagram.cut {
            count(&desk.counters.malformed);
            continue;
        }
        let query = datagram.bytes;
        outbox.push(datagram.from, |out| {
            let (limit, failure) = match turn.answer(query, Transport::Udp, out) {
                Left::Nothing => return answered += 1,
                Left::Malformed => return,
                Left::Forward { limit, failure } => (limit, failure),
            };
            if forwards.len() >= MOST_FORWARDS {
                count(&desk.counters.failed);
                return out.extend_from_slice(&failure);
            }
            let (desk, query, client) = (Arc::clone(desk), query.to_vec(), datagram.from);
            forwards.spawn_on(async move { (desk.forward(&query, limit, failure).await, client) }, others);
        });
    }
    drop(turn);
    if let (failed, Some(error)) = outbox.send(socket.as_fd()) {
        tracing::debug!(failed, %error, "send failed");
    }
    desk.counters.own.observe(begun.elapsed(), answered);
    Ok(received.get())
}

fn send(socket: &UdpSocket, buffers: &Mutex<Buffers>, response: &[u8], client: SocketAddrV4) {
    let mut buffers = lock(buffers);
    buffers.outbox.push(client, |out| out.extend_from_slice(response));
    if let (_, Some(error)) = buffers.outbox.send(socket.as_fd()) {
        tracing::debug!(%client, %error, "send failed");
    }
}
