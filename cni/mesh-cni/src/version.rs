//! The versions of the specification that are spoken.

use std::fmt;

use serde_json::{Value, json};

use crate::error::{CniError, Code};

/// A version of the specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SpecVersion {
    /// CHECK came with it.
    V0_4_0,
    /// Addresses no longer name their family.
    V1_0_0,
    /// GC and STATUS came with it.
    V1_1_0,
}

/// All of them, the newest last.
const ALL: [SpecVersion; 3] = [SpecVersion::V0_4_0, SpecVersion::V1_0_0, SpecVersion::V1_1_0];

impl SpecVersion {
    /// The newest one.
    pub const NEWEST: Self = Self::V1_1_0;

    const fn as_str(self) -> &'static str {
        match self {
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }

    /// The version that a configuration is of.
    pub fn of_config(config: &Value) -> Result<Self, CniError> {
        // What has none is of the time before there were any.
        let given = match config.get("cniVersion") {
            None | Some(Value::Null) => "0.1.0",
            Some(Value::String(given)) => given,
            Some(other) => {
                let details = format!("\"cniVersion\" is {other}, which is not a version such as \"1.0.0\"");
                return Err(CniError::new(Code::Decode, "cannot read the configuration", details));
            }
        };
        ALL.into_iter().find(|version| version.as_str() == given).ok_or_else(|| {
            let all = ALL.map(Self::as_str).join(", ");
            let details = format!("the configuration is of version {given:?}; the plugin speaks {all}");
            CniError::new(Code::Version, "incompatible CNI version", details)
        })
    }

    /// The answer to VERSION, given in the version that `config` asks by.
    pub fn report(config: &Value) -> Value {
        let asked = config.get("cniVersion").and_then(Value::as_str).unwrap_or(Self::NEWEST.as_str());
        json!({ "cniVersion": asked, "supportedVersions": ALL.map(Self::as_str) })
    }
}

impl fmt::Display for SpecVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_told_apart() {
        let of = |text: &str| SpecVersion::of_config(&json!({ "cniVersion": text }));
        assert_eq!(of("0.4.0"), Ok(SpecVersion::V0_4_0));
        assert_eq!(of("1.1.0"), Ok(SpecVersion::NEWEST));
        for unknown in ["0.3.1", "1.2.0", "1.0", "", "latest"] {
            let error = of(unknown).unwrap_err();
            assert_eq!(error.code, Code::Version);
            assert!(error.details.contains(&format!("{unknown:?}")), "{error}");
        }
        assert_eq!(SpecVersion::of_config(&json!({})).unwrap_err().code, Code::Version);
        assert_eq!(SpecVersion::of_config(&json!({"cniVersion": 1.0})).unwrap_err().code, Code::Decode);
    }

    #[test]
    fn the_report_is_in_the_version_asked_by() {
        let report = SpecVersion::report(&json!({ "cniVersion": "0.3.1" }));
        assert_eq!(report, json!({"cniVersion": "0.3.1", "supportedVersions": ["0.4.0", "1.0.0", "1.1.0"]}));
        assert_eq!(SpecVersion::report(&Value::Null)["cniVersion"], "1.1.0");
    }
}
