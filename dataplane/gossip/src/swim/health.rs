//! How slow this node itself seems to be (Lifeguard's local health).

use std::time::Duration;

/// How slow this node itself seems to be: 0 is well. Its probes take so many times longer more.
///
/// It gets worse when this process stood still, when others took it for dead, and when nobody at all answers questions about a
/// member that it suspects; better with every probe that is answered.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Health(u8);

impl Health {
    /// Lifeguard goes to 8; here the dead are to be told within 3 s by slow nodes, too.
    const WORST: u8 = 3;

    pub(crate) fn get(self) -> u8 {
        self.0
    }

    pub(crate) fn worse(&mut self) {
        self.0 = (self.0 + 1).min(Self::WORST);
    }

    pub(super) fn better(&mut self) {
        self.0 = self.0.saturating_sub(1);
    }

    pub(super) fn stretch(self, time: Duration) -> Duration {
        time * (u32::from(self.0) + 1)
    }
}
