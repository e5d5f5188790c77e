//! The page's files, in the binary.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};

/// A file.
pub(crate) struct Asset {
    /// Where it is asked for.
    pub path: &'static str,
    pub kind: &'static str,
    pub body: &'static [u8],
}

const SCRIPT: &str = "text/javascript; charset=utf-8";

macro_rules! asset {
    ($path:literal, $kind:expr, $file:literal) => {
        Asset { path: $path, kind: $kind, body: include_bytes!(concat!("../assets/", $file)) }
    };
}

pub(crate) const ASSETS: &[Asset] = &[
    asset!("/", "text/html; charset=utf-8", "index.html"),
    asset!("/style.css", "text/css; charset=utf-8", "style.css"),
    asset!("/icon.svg", "image/svg+xml", "icon.svg"),
    asset!("/icons.svg", "image/svg+xml", "icons.svg"),
    asset!("/app.js", SCRIPT, "app.js"),
    asset!("/api.js", SCRIPT, "api.js"),
    asset!("/dom.js", SCRIPT, "dom.js"),
    asset!("/format.js", SCRIPT, "format.js"),
    asset!("/list.js", SCRIPT, "list.js"),
    asset!("/lists.js", SCRIPT, "lists.js"),
    asset!("/overview.js", SCRIPT, "overview.js"),
    asset!("/service.js", SCRIPT, "service.js"),
    asset!("/map.js", SCRIPT, "map.js"),
    asset!("/layout.js", SCRIPT, "layout.js"),
    asset!("/changes.js", SCRIPT, "changes.js"),
    asset!("/spark.js", SCRIPT, "spark.js"),
];

/// The file at a path.
pub(crate) fn find(path: &str) -> Option<&'static Asset> {
    ASSETS.iter().find(|asset| asset.path == path)
}

impl Asset {
    /// Another one for other content.
    pub fn tag(&self) -> String {
        format!("\"{}\"", URL_SAFE_NO_PAD.encode(&Sha256::digest(self.body)[..12]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_comes_from_elsewhere_and_all_is_small() {
        let size: usize = ASSETS.iter().map(|asset| asset.body.len()).sum();
        assert!(size < 200_000, "{size} bytes leave too little of 300 KB for what is shown");
        for asset in ASSETS {
            let text = std::str::from_utf8(asset.body).unwrap();
            // Names of XML, which nobody fetches.
            let text = text.replace("http://www.w3.org/2000/svg", "");
            assert!(!text.contains("http://") && !text.contains("https://"), "{}", asset.path);
            for word in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("] {
                assert!(!text.contains(word), "{} makes markup of text: {word}", asset.path);
            }
        }
    }
}
