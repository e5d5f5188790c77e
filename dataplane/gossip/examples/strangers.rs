//! What a packet that is refused costs: `cargo run --release -p mesh-gossip --example strangers`.

use std::{error::Error, hint::black_box, time::Instant};

use mesh_gossip::{KeyRing, KeyRingError, Sealer};
use mesh_types::ClusterId;

const ROUNDS: usize = 9;
const PACKETS: u32 = 20_000;

fn sealer(cluster: u128, keys: &[u8]) -> Result<Sealer, KeyRingError> {
    let keys = KeyRing::new(keys.iter().map(|key| [*key; 32]).collect())?;
    Ok(Sealer::new(ClusterId::from_u128(cluster), &keys))
}

fn main() -> Result<(), Box<dyn Error>> {
    let own = sealer(1, &[1, 2, 3])?;
    let plain = [7; 1180];
    let cases = [
        ("noise", vec![0; 1213]),
        ("another cluster's keys", sealer(2, &[9])?.seal(&plain, b"udp")?),
        ("a known key's id, forged", sealer(2, &[3])?.seal(&plain, b"udp")?),
        ("a member's", sealer(1, &[3])?.seal(&plain, b"udp")?),
    ];
    for (name, packet) in cases {
        let mut rounds: Vec<u128> = (0..ROUNDS)
            .map(|_| {
                let mut room = packet.clone();
                let begin = Instant::now();
                for _ in 0..PACKETS {
                    room.copy_from_slice(&packet);
                    let _ = black_box(own.open_in_place(black_box(&mut room), b"udp"));
                }
                begin.elapsed().as_nanos() / u128::from(PACKETS)
            })
            .collect();
        rounds.sort_unstable();
        println!("{name}: {} ns (median of {ROUNDS} rounds, {} bytes)", rounds[ROUNDS / 2], packet.len());
    }
    Ok(())
}
