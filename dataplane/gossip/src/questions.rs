//! Questions to other nodes' data paths, by a socket of its own: they answer the address of this node's data path only.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use mesh_abi::{QUESTION, QUESTION_LEN};
use rustix::net::sockopt::{
    Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery, set_ip_mtu_discover, set_ipv6_mtu_discover,
};
use tokio::{net::UdpSocket, time::timeout};
use tracing::debug;

const LEN: usize = QUESTION_LEN as usize;

/// Asks from one address, as soon as it is there.
#[derive(Debug, Default)]
pub(crate) struct Questions {
    own: Option<IpAddr>,
    socket: Option<UdpSocket>,
}

impl Questions {
    /// Asks from `own` from now on.
    pub(crate) fn ask_from(&mut self, own: IpAddr) {
        if self.own.replace(own) != Some(own) {
            self.socket = None;
        }
    }

    /// The address that it asks from.
    pub(crate) fn own(&self) -> Option<IpAddr> {
        self.own
    }

    /// Asks once. What cannot be sent is as good as lost.
    pub(crate) async fn ask(&mut self, to: SocketAddr, nonce: u64) {
        let Some(own) = self.own else { return };
        if self.socket.is_none() {
            match UdpSocket::bind(SocketAddr::new(own, 0)).await {
                Ok(socket) => self.socket = Some(socket),
                Err(error) => return debug!(%own, %error, "data paths cannot be asked"),
            }
        }
        let Some(socket) = &self.socket else { return };
        if let Err(error) = socket.send_to(&question(nonce), to).await {
            debug!(%to, %error, "data path not asked");
            // The address may have gone from its interface and come to another one.
            self.socket = None;
        }
    }

    /// The next answer: whose, and to which question.
    pub(crate) async fn answer(&self) -> (SocketAddr, u64) {
        loop {
            let Some(socket) = &self.socket else { std::future::pending().await };
            let mut buffer = [0; LEN + 1];
            match socket.recv_from(&mut buffer).await {
                Ok((len, from)) => {
                    if let Some(nonce) = nonce(&buffer[..len]) {
                        return (from, nonce);
                    }
                }
                Err(error) => {
                    debug!(%error, "answer of a data path not received");
                    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                }
            }
        }
    }

    /// An answer that is there already.
    pub(crate) fn waiting(&self) -> Option<(SocketAddr, u64)> {
        let mut buffer = [0; LEN + 1];
        loop {
            let (len, from) = self.socket.as_ref()?.try_recv_from(&mut buffer).ok()?;
            if let Some(nonce) = nonce(&buffer[..len]) {
                return Some((from, nonce));
            }
        }
    }
}

/// Asks the data path of another node once, from `own`, by a packet of `size` bytes with its IP header, or of the least
/// size, that may not be fragmented. How long the answer took; none if there was none in `wait`. An error is `EMSGSIZE`
/// (`ErrorKind::Other`) where the packet is larger than this node's own interface takes.
pub async fn ask_data_path(
    own: IpAddr,
    to: SocketAddr,
    size: u32,
    wait: Duration,
) -> io::Result<Option<Duration>> {
    let socket = UdpSocket::bind(SocketAddr::new(own, 0)).await?;
    let headers = match own {
        IpAddr::V4(_) => {
            set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::PROBE)?;
            28
        }
        IpAddr::V6(_) => {
            set_ipv6_mtu_discover(&socket, Ipv6PathMtuDiscovery::PROBE)?;
            48
        }
    };
    let mut packet = question(rand::random()).to_vec();
    packet.resize(LEN.max(usize::try_from(size.saturating_sub(headers)).unwrap_or(LEN)), 0);
    let asked = Instant::now();
    socket.send_to(&packet, to).await?;
    let mut buffer = vec![0; packet.len() + 1];
    let answered = async {
        loop {
            match socket.recv_from(&mut buffer).await {
                Ok((len, from)) if from == to && buffer[..len] == packet[..] => return Some(asked.elapsed()),
                Ok(_) => {}
                Err(error) => {
                    debug!(%error, "answer of a data path not received");
                    return None;
                }
            }
        }
    };
    Ok(timeout(wait, answered).await.unwrap_or(None))
}

fn question(nonce: u64) -> [u8; LEN] {
    let mut bytes = [0; LEN];
    let (beginning, number) = bytes.split_at_mut(QUESTION.len());
    beginning.copy_from_slice(&QUESTION);
    number.copy_from_slice(&nonce.to_be_bytes());
    bytes
}

fn nonce(answer: &[u8]) -> Option<u64> {
    let number = answer.strip_prefix(&QUESTION)?;
    Some(u64::from_be_bytes(number.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_the_question() {
        let asked = question(0x0102_0304_0506_0708);
        assert_eq!(nonce(&asked), Some(0x0102_0304_0506_0708));
        for end in 0..asked.len() {
            assert_eq!(nonce(&asked[..end]), None);
        }
        assert_eq!(nonce(&[&asked[..], &[0]].concat()), None);
    }

    #[tokio::test]
    async fn it_asks_and_is_answered() {
        let local = SocketAddr::from(([127, 0, 0, 1], 0));
        let other = UdpSocket::bind(local).await.unwrap();
        let mut questions = Questions::default();
        questions.ask(other.local_addr().unwrap(), 1).await;
        questions.ask_from(local.ip());
        questions.ask(other.local_addr().unwrap(), 7).await;
        let mut buffer = [0; 64];
        let (len, from) = other.recv_from(&mut buffer).await.unwrap();
        assert_eq!(nonce(&buffer[..len]), Some(7), "without an address nothing is asked");
        other.send_to(b"noise", from).await.unwrap();
        other.send_to(&buffer[..len], from).await.unwrap();
        assert_eq!(questions.answer().await, (other.local_addr().unwrap(), 7));
        assert_eq!(questions.waiting(), None);
    }
}
