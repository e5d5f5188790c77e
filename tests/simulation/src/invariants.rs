//! What must hold, one file each.

pub mod addresses;
pub mod convergence;
pub mod equal_states;
pub mod linearizable;
pub mod lost_writes;
pub mod one_leader;
