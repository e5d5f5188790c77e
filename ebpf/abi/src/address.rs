//! Addresses as map keys hold them.

/// An IPv6 address, or an IPv4 address mapped into `::ffff:0:0/96` (RFC 4291, section 2.5.5.2).
pub type Address = [u8; 16];

/// Stands for every IPv4 address, where a key allows it: `::ffff:0.0.0.0`.
pub const ANY_V4: Address = v4_mapped([0; 4]);
/// Stands for every IPv6 address, where a key allows it: `::`.
pub const ANY_V6: Address = [0; 16];

/// The mapped form of an IPv4 address.
#[inline(always)]
pub const fn v4_mapped(a: [u8; 4]) -> Address {
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a[0], a[1], a[2], a[3]]
}

/// The IPv4 address in the last four bytes, whatever the others are.
#[inline(always)]
pub const fn v4_of(a: &Address) -> [u8; 4] {
    [a[12], a[13], a[14], a[15]]
}

/// Whether an address is the mapped form of an IPv4 address.
#[inline(always)]
pub const fn is_v4(a: &Address) -> bool {
    let [a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, ..] = *a;
    let zeros = a0 | a1 | a2 | a3 | a4 | a5 | a6 | a7 | a8 | a9;
    zeros == 0 && a10 & a11 == 0xff
}
