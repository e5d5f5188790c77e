//! Fixed-length base 36 of big-endian numbers, as ids have it, for lengths beyond 128 bits.

const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// Why a text is not such a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It has this many characters.
    Length(usize),
    /// A character outside `0-9a-z`.
    Character(char),
    /// The number does not fit.
    Overflow,
}

/// Characters that any number of `bytes` bytes fits into: the ceiling of `8 * bytes / log2(36)`.
pub(crate) const fn len(bytes: usize) -> usize {
    // log2(36) = 5.169925; scaled integers keep it const.
    (bytes * 8_000_000).div_ceil(5_169_925)
}

/// The number in `bytes`, padded with zeros to its fixed length.
pub(crate) fn encode(bytes: &[u8]) -> String {
    let mut number = bytes.to_vec();
    let mut out: Vec<char> = (0..len(bytes.len()))
        .map(|_| {
            let mut rest = 0u32;
            for byte in &mut number {
                let value = rest * 256 + u32::from(*byte);
                *byte = (value / 36) as u8;
                rest = value % 36;
            }
            char::from(DIGITS[rest as usize])
        })
        .collect();
    out.reverse();
    out.into_iter().collect()
}

/// The number that `text` means.
pub(crate) fn decode<const N: usize>(text: &str) -> Result<[u8; N], Fault> {
    let count = text.chars().count();
    if count != len(N) {
        return Err(Fault::Length(count));
    }
    let mut number = [0u8; N];
    for c in text.chars() {
        let digit = match c {
            '0'..='9' | 'a'..='z' => c.to_digit(36).ok_or(Fault::Character(c))?,
            _ => return Err(Fault::Character(c)),
        };
        let mut carry = digit;
        for byte in number.iter_mut().rev() {
            let value = u32::from(*byte) * 36 + carry;
            *byte = (value & 0xff) as u8;
            carry = value >> 8;
        }
        if carry != 0 {
            return Err(Fault::Overflow);
        }
    }
    Ok(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_types::NodeId;
    use proptest::prelude::*;

    #[test]
    fn lengths() {
        assert_eq!((len(16), len(32)), (25, 50));
    }

    #[test]
    fn extremes() {
        assert_eq!(decode::<32>(&encode(&[0xff; 32])), Ok([0xff; 32]));
        assert_eq!(decode::<32>(&"z".repeat(50)), Err(Fault::Overflow));
        assert_eq!(decode::<16>("é"), Err(Fault::Length(1)));
        assert_eq!(decode::<16>(&"É".repeat(25)), Err(Fault::Character('É')));
    }

    proptest! {
        #[test]
        fn round_trips(bytes: [u8; 32]) {
            prop_assert_eq!(decode::<32>(&encode(&bytes)), Ok(bytes));
        }

        #[test]
        fn agrees_with_ids(value: u128) {
            prop_assert_eq!(encode(&value.to_be_bytes()), NodeId::from_u128(value).to_string());
        }

        #[test]
        fn noise_never_panics(text in ".{0,60}") {
            let _ = decode::<32>(&text);
        }
    }
}
