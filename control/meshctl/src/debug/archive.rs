//! Files in one `.tar.gz`: the format ustar (POSIX.1-1988) in a gzip (RFC 1952) of stored blocks (RFC 1951, section 3.2.4).
//! What is a few hundred kilobytes of text needs no compression, and so no library.

const BLOCK: usize = 512;
/// What a stored block holds at most.
const STORED: usize = 65_535;

/// Files, by name, each of which is for its owner alone when unpacked; `now` is in seconds since 1970-01-01 UTC.
pub fn tar_gz(folder: &str, files: &[(String, Vec<u8>)], now: u64) -> Vec<u8> {
    let mut tar = Vec::new();
    for (name, content) in files {
        tar.extend(header(&format!("{folder}/{name}"), content.len(), now));
        tar.extend(content);
        tar.resize(tar.len().next_multiple_of(BLOCK), 0);
    }
    // Two empty blocks are the end.
    tar.resize(tar.len() + 2 * BLOCK, 0);
    gzip(&tar)
}

fn header(name: &str, size: usize, now: u64) -> [u8; BLOCK] {
    let mut header = [0; BLOCK];
    let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, &name.chars().filter(char::is_ascii).take(99).collect::<String>());
    put(100, "0000600\0");
    put(108, "0000000\0");
    put(116, "0000000\0");
    put(124, &format!("{size:011o}\0"));
    put(136, &format!("{:011o}\0", now & 0o77_777_777_777));
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    // No name, no time, of an unknown system.
    let mut out = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let mut chunks = bytes.chunks(STORED).peekable();
    while let Some(chunk) = chunks.next() {
        out.push(u8::from(chunks.peek().is_none()));
        let len = u16::try_from(chunk.len()).unwrap_or(u16::MAX);
        out.extend(len.to_le_bytes());
        out.extend((!len).to_le_bytes());
        out.extend(chunk);
    }
    out.extend(crc32(bytes).to_le_bytes());
    out.extend((bytes.len() as u32).to_le_bytes());
    out
}

/// As gzip has it: polynomial 0xEDB88320, reflected.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    };
    !bytes.iter().fold(u32::MAX, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_the_known_one() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn tar_unpacks_it() {
        let folder = tempfile::tempdir().unwrap();
        let large = vec![b'x'; 200_000];
        let files = [("a.txt".to_owned(), b"one\n".to_vec()), ("b".to_owned(), large.clone())];
        let path = folder.path().join("x.tar.gz");
        std::fs::write(&path, tar_gz("top", &files, 1_700_000_000)).unwrap();
        let mut tar = std::process::Command::new("tar");
        let unpacked = tar.arg("-xzf").arg(&path).arg("-C").arg(folder.path()).output().unwrap();
        assert!(unpacked.status.success(), "{}", String::from_utf8_lossy(&unpacked.stderr));
        assert_eq!(std::fs::read(folder.path().join("top/a.txt")).unwrap(), b"one\n");
        assert_eq!(std::fs::read(folder.path().join("top/b")).unwrap(), large);
    }
}
