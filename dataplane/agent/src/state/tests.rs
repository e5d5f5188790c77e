use std::{collections::BTreeMap, net::IpAddr, thread, time::Duration};

use mesh_types::NetworkId;

use super::*;
use crate::leases::{Held, Leases};

/// Attaches, changes by managers and renewals keep leases at the same time.
#[test]
fn what_is_kept_of_the_leases_is_what_was_last() {
    let folder = tempfile::tempdir().unwrap();
    let files = Files::new(folder.path());
    let leases = Mutex::new((0u8, Leases::default()));
    let grow = || {
        let (count, leases) = &mut *leases.lock().unwrap();
        *count += 1;
        let addresses = (1..=*count).map(|last| IpAddr::from([10, 10, 3, last])).collect();
        let held = BTreeMap::from([(NetworkId::from_u128(1), Held { addresses, scarce: false })]);
        leases.replace((*count).into(), &held, Duration::ZERO);
    };
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    grow();
                    files.save_leases(|| leases.lock().unwrap().1.kept()).unwrap();
                }
            });
        }
    });
    assert_eq!(leases.lock().unwrap().0, 200);
    assert_eq!(files.load_leases().unwrap(), (leases.lock().unwrap().1.kept(), true));
}
