//! By which programs an uplink's packets are handled, and whether its driver can run XDP itself.

use std::{ffi::CStr, fmt, io, os::fd::AsRawFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use crate::hooks::HookKind;

/// Where packets of uplinks are handled first. The tc program is attached in any case: it does what XDP leaves to it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum UplinkHook {
    /// By XDP where the driver is known to run it well, else by tc alone.
    #[default]
    Auto,
    /// By XDP wherever the driver takes it.
    Xdp,
    /// By tc alone.
    Tc,
}

/// An uplink, and what is attached to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uplink {
    /// Its name.
    pub interface: String,
    /// By what its tc program is held.
    pub tc: HookKind,
    /// Whether XDP handles its packets first; else why not.
    pub xdp: Result<(), NoXdp>,
}

/// Why an uplink's packets are handled by tc alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoXdp {
    /// The configuration says so.
    Configured,
    /// These programs were built without the XDP program.
    NotBuilt,
    /// The interface has no driver that is known to run XDP itself.
    Driver(String),
    /// The kernel or the driver refused.
    Refused(String),
}

impl fmt::Display for NoXdp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Configured => f.write_str("the configuration says tc"),
            Self::NotBuilt => f.write_str("the eBPF object has no XDP program"),
            Self::Driver(driver) if driver.is_empty() => {
                f.write_str("the interface has no driver of its own")
            }
            Self::Driver(driver) => write!(f, "driver {driver} is not known to run XDP well"),
            Self::Refused(why) => write!(f, "XDP was refused: {why}"),
        }
    }
}

/// Drivers that run XDP themselves, with `XDP_TX` and `XDP_REDIRECT`, in the kernel's own tree. Those that need more than
/// the oldest kernel supported refuse on older ones, and tc goes on alone. Virtual interfaces are missing on purpose:
/// veth would lose GSO, and tun, bridges and bonds gain nothing.
const NATIVE: [&str; 19] = [
    "virtio_net",
    "mlx5_core",
    "mlx4_en",
    "ixgbe",
    "ixgbevf",
    "i40e",
    "ice",
    "igb",
    "igc",
    "ena",
    "bnxt_en",
    "nfp",
    "gve",
    "qede",
    "sfc",
    "mana",
    "ionic",
    "mvneta",
    "mvpp2",
];

/// Whether XDP should be tried on an interface of the calling thread's namespace.
pub(crate) fn wants_xdp(hook: UplinkHook, interface: &str) -> Result<(), NoXdp> {
    match hook {
        UplinkHook::Tc => Err(NoXdp::Configured),
        UplinkHook::Xdp => Ok(()),
        UplinkHook::Auto => {
            let driver = driver(interface).unwrap_or_default();
            if NATIVE.contains(&driver.as_str()) { Ok(()) } else { Err(NoXdp::Driver(driver)) }
        }
    }
}

/// What a refusal means, for people.
pub(crate) fn refused(error: &io::Error) -> NoXdp {
    NoXdp::Refused(match error.raw_os_error() {
        Some(libc::EOPNOTSUPP) => "the driver cannot".to_owned(),
        Some(libc::EBUSY | libc::EEXIST) => "another XDP program is attached already".to_owned(),
        _ => error.to_string(),
    })
}

/// The name of the interface's driver, asked by ethtool's ioctl: `/sys` may show another namespace's interfaces.
fn driver(interface: &str) -> io::Result<String> {
    let any = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let mut info = DriverInfo { cmd: ETHTOOL_GDRVINFO, driver: [0; 32], rest: [0; 160] };
    let mut request = Request { name: [0; libc::IFNAMSIZ], data: &raw mut info, pad: [0; 16] };
    let name = interface.as_bytes();
    if name.len() >= libc::IFNAMSIZ {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    request.name.iter_mut().zip(name).for_each(|(to, from)| *to = *from);
    // SAFETY: a `struct ifreq` whose data points to a `struct ethtool_drvinfo`; both live until the call is over.
    let result = unsafe { libc::ioctl(any.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let driver = CStr::from_bytes_until_nul(&info.driver).map_err(io::Error::other)?;
    Ok(driver.to_string_lossy().into_owned())
}

/// From the kernel's `include/uapi/linux/sockios.h` and `ethtool.h`.
const SIOCETHTOOL: libc::Ioctl = 0x8946;
const ETHTOOL_GDRVINFO: u32 = 3;

/// `struct ethtool_drvinfo`: 196 bytes.
#[repr(C)]
struct DriverInfo {
    cmd: u32,
    driver: [u8; 32],
    rest: [u8; 160],
}

/// `struct ifreq` on 64-bit kernels: 40 bytes.
#[repr(C)]
struct Request {
    name: [u8; libc::IFNAMSIZ],
    data: *mut DriverInfo,
    pad: [u8; 16],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_choice() {
        assert_eq!(wants_xdp(UplinkHook::Tc, "lo"), Err(NoXdp::Configured));
        assert_eq!(wants_xdp(UplinkHook::Xdp, "lo"), Ok(()));
        assert_eq!(wants_xdp(UplinkHook::Auto, "lo"), Err(NoXdp::Driver(String::new())));
        assert_eq!(wants_xdp(UplinkHook::Auto, "nosuch0"), Err(NoXdp::Driver(String::new())));
        assert_eq!(size_of::<DriverInfo>(), 196);
        assert_eq!(size_of::<Request>(), 40);
    }
}
