//! `meshctl debug bundle` on a manager: it has what helps to find a fault, and nothing of what the node keeps secret.

use std::{collections::HashSet, fs, path::Path};

use anyhow::{Context, Result, ensure};
use mesh_tests::{run, succeed};

/// So many bytes of a secret in a row are too many. Longer than ids, which may be told; shorter than any key but the unlock
/// key, which is looked for as it is written.
const WINDOW: usize = 24;
/// What has fewer different bytes in a window is padding, not a key.
const DIFFERENT: usize = 16;

type Windows = HashSet<[u8; WINDOW]>;

fn windows(bytes: &[u8]) -> impl Iterator<Item = [u8; WINDOW]> {
    let all = bytes.windows(WINDOW).filter_map(|window| <[u8; WINDOW]>::try_from(window).ok());
    all.filter(|window| window.iter().collect::<HashSet<_>>().len() >= DIFFERENT)
}

/// All windows of the files in a folder and those below; of PEM what it encodes.
fn of_files(folder: &Path, into: &mut Windows) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            of_files(&path, into)?;
            continue;
        }
        let bytes = fs::read(&path).with_context(|| path.display().to_string())?;
        into.extend(windows(&bytes));
        if bytes.windows(10).any(|part| part == b"-----BEGIN") {
            let text = String::from_utf8_lossy(&bytes);
            into.extend(
                text.lines().filter_map(base64).flat_map(|bytes| windows(&bytes).collect::<Vec<_>>()),
            );
        }
    }
    Ok(())
}

/// The bytes that `text` writes as hexadecimal, as base64, or as a list of numbers.
fn written(text: &str) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for run in text.split(|c: char| !c.is_ascii_hexdigit()).filter(|run| run.len() >= 2 * WINDOW) {
        for run in [run, &run[1..]] {
            let digit = |at: usize| run.get(at..at + 2).and_then(|two| u8::from_str_radix(two, 16).ok());
            found.push((0..run.len()).step_by(2).filter_map(digit).collect());
        }
    }
    let is_other = |c: char| !c.is_ascii_alphanumeric() && !"+/-_=".contains(c);
    for run in text.split(is_other).filter(|run| run.len() >= 4 * WINDOW / 3) {
        found.extend((0..4).filter_map(|from| base64(&run[from..])));
    }
    let numbers = text.split([',', ' ', '\n', '[', ']', '(', ')']).filter(|word| !word.is_empty());
    let mut list = Vec::new();
    for number in numbers.map(|word| word.parse::<u8>().ok()).chain([None]) {
        match number {
            Some(number) => list.push(number),
            None => found.push(std::mem::take(&mut list)),
        }
    }
    found
}

/// What base64 (RFC 4648, of either alphabet) says, as far as it is whole.
fn base64(text: &str) -> Option<Vec<u8>> {
    let value = |c: u8| {
        Some(match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        })
    };
    let values: Vec<u8> = text.trim_end_matches('=').bytes().map(value).collect::<Option<_>>()?;
    let bits = values.iter().flat_map(|value| (0..6).rev().map(move |bit| (value >> bit) & 1));
    let bits: Vec<u8> = bits.collect();
    Some(bits.chunks_exact(8).map(|eight| eight.iter().fold(0, |byte, bit| byte << 1 | bit)).collect())
}

fn tells(text: &str, secret: &Windows) -> bool {
    written(text).iter().any(|bytes| windows(bytes).any(|window| secret.contains(&window)))
}

/// That secrets would be seen if they were told.
fn secrets_are_seen(secret: &Windows) -> Result<()> {
    let one = secret.iter().next().context("the node keeps nothing")?;
    let hex: String = one.iter().map(|byte| format!("{byte:02x}")).collect();
    ensure!(tells(&format!("key: {hex}\n"), secret), "{hex}");
    ensure!(tells(&format!("keys: {:#?}\n", one.as_slice()), secret), "{one:?}");
    // Three bytes are four letters.
    let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let four = |three: &[u8]| {
        let bits = three.iter().fold(0_usize, |bits, byte| bits << 8 | usize::from(*byte));
        [18, 12, 6, 0].map(|from| char::from(letters[(bits >> from) & 63]))
    };
    let encoded: String = one.chunks_exact(3).flat_map(four).collect();
    ensure!(tells(&format!("{{\"key\": \"{encoded}\"}}"), secret), "{encoded}");
    Ok(())
}

#[test]
fn a_bundle_of_a_manager_has_no_secrets() -> Result<()> {
    run(2, |cluster| {
        let manager = &cluster[0];
        let token = |role| manager.ctl(&["join-token", role, "--quiet"]).map(|text| text.trim().to_owned());
        let mut words = vec![token("worker")?, token("manager")?];
        // While they lie open: the node's and the CA's private keys, what gossip is sealed with, what the state is.
        let mut secret = Windows::new();
        of_files(&manager.state_folder(), &mut secret)?;
        ensure!(manager.state_folder().join("identity.pem").exists(), "where is the private key?");
        secrets_are_seen(&secret)?;
        let locked = manager.ctl_json(&["cluster", "update", "--autolock=true"])?;
        words.push(locked["unlock_key"].as_str().context("no key")?.to_owned());
        // Somebody has left a token where everybody sees it.
        let label = format!("note={}", words[0]);
        manager.ctl(&["network", "create", "--attachable", "--label", &label, "prod"])?;
        cluster.wait_for_view()?;

        // A rule that nftables does not list.
        let rule = ["-A", "INPUT", "-p", "tcp", "--dport", "6543", "-j", "DROP"];
        succeed(manager.command("iptables-legacy")?.args(rule))?;

        let folder = manager.state_folder().with_file_name("bundle");
        fs::create_dir_all(&folder).context("a folder")?;
        let path = folder.join("bundle.tar.gz");
        manager.ctl(&["debug", "bundle", "-o", &path.display().to_string()])?;
        succeed(
            manager.command("tar")?.arg("-xzf").arg(&path).arg("-C").arg(&folder).arg("--strip-components=1"),
        )?;
        fs::remove_file(&path).context("the archive")?;
        let mut all = String::new();
        for entry in fs::read_dir(&folder).context("the bundle")? {
            let path = entry?.path();
            let text = String::from_utf8_lossy(&fs::read(&path).context("a file of it")?).into_owned();
            for word in &words {
                let tail = word.rsplit('-').next().context("a word")?;
                ensure!(!text.contains(tail), "{} tells {word}", path.display());
            }
            ensure!(!text.contains("PRIVATE KEY"), "{} tells a private key", path.display());
            ensure!(!tells(&text, &secret), "{} tells what the node keeps", path.display());
            all.push_str(&text);
        }
        // What it is for is in it.
        ensure!(all.contains("(left out)") && all.contains("\"prod\""), "the network, and its label");
        ensure!(all.contains("-A INPUT -p tcp -m tcp --dport 6543 -j DROP"), "rules of the older iptables");
        for map in ["ENDPOINTS", "SERVICES", "BACKENDS", "CHOICES_KEPT"] {
            ensure!(all.contains(&format!("name: \"{map}\"")), "how full {map} is");
        }
        Ok(())
    })
}
