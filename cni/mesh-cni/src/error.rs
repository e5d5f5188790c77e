//! Errors as the specification has them (section "Error"): a code, a short and a longer message.

use serde_json::{Value, json};
use thiserror::Error;

/// The specification's codes, and from 100 the plugin's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// The configuration's `cniVersion` is not spoken here.
    Version = 1,
    /// The configuration asks for what this plugin cannot do.
    UnsupportedField = 2,
    /// The container, or its namespace, is not there: nothing needs to be cleaned up.
    UnknownContainer = 3,
    /// Variables of the environment are missing or wrong.
    Environment = 4,
    /// Standard input cannot be read.
    Io = 5,
    /// What is on it is not JSON.
    Decode = 6,
    /// A field of the configuration is wrong, or names what is not there.
    Config = 7,
    /// The same may succeed later.
    TryAgain = 11,
    /// No ADD would succeed now (answer to STATUS).
    NotAvailable = 50,
    /// meshd refuses.
    Refused = 100,
    /// A container's network is not as it should be (answer to CHECK), or some of several could not be removed (GC).
    Failed = 101,
}

/// Why an operation was not done. An ADD that fails has changed nothing but for [`Code::TryAgain`], after which it may
/// have been done: the runtime deletes or adds again.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{msg}: {details}")]
pub struct CniError {
    /// Which kind.
    pub code: Code,
    /// What was not done.
    pub msg: String,
    /// Why, and what to do about it.
    pub details: String,
}

impl CniError {
    /// With what was not done, and why.
    pub fn new(code: Code, msg: impl Into<String>, details: impl Into<String>) -> Self {
        Self { code, msg: msg.into(), details: details.into() }
    }

    /// A configuration that is wrong.
    pub fn config(details: impl Into<String>) -> Self {
        Self::new(Code::Config, "invalid network configuration", details)
    }

    /// As standard output has it.
    pub fn json(&self, version: &str) -> Value {
        json!({
            "cniVersion": version,
            "code": self.code as u32,
            "msg": self.msg,
            "details": self.details,
        })
    }
}
