//! The plugin's process.

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use crate::fake::Fake;

/// How it ended.
#[derive(Debug)]
pub struct Outcome {
    pub code: Option<i32>,
    /// Standard output; null where it is empty.
    pub json: Value,
}

impl Outcome {
    /// The result of an operation that has to succeed.
    pub fn result(self) -> Value {
        assert_eq!(self.code, Some(0), "{}", self.json);
        self.json
    }

    /// The error of one that has to fail: its code, and message and details.
    pub fn error(self) -> (u64, String) {
        assert_eq!(self.code, Some(1), "{}", self.json);
        let keys: Vec<&String> = self.json.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["cniVersion", "code", "details", "msg"], "{}", self.json);
        let text = |key: &str| self.json[key].as_str().unwrap().to_owned();
        (self.json["code"].as_u64().unwrap(), format!("{}: {}", text("msg"), text("details")))
    }
}

/// A call of the plugin.
#[derive(Debug, Clone)]
pub struct Call {
    pub variables: Vec<(&'static str, String)>,
    pub input: String,
}

/// A configuration for `fake` with further fields.
pub fn config(fake: &Fake, version: &str, fields: Value) -> Value {
    let mut config = json!({
        "cniVersion": version, "name": "prod", "type": "mesh-cni", "socket": fake.socket(),
    });
    config.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    config
}

/// This process's own network namespace.
pub fn namespace() -> String {
    format!("/proc/{}/ns/net", std::process::id())
}

impl Call {
    /// Of `command` for interface eth0 of container c1.
    pub fn new(command: &str, config: &Value) -> Self {
        let variables = [
            ("CNI_COMMAND", command.to_owned()),
            ("CNI_CONTAINERID", "c1".to_owned()),
            ("CNI_NETNS", namespace()),
            ("CNI_IFNAME", "eth0".to_owned()),
            ("CNI_PATH", "/opt/cni/bin".to_owned()),
        ];
        Self { variables: variables.to_vec(), input: config.to_string() }
    }

    /// With another value of a variable; an empty one takes it away.
    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        self.variables.retain(|(n, _)| *n != name);
        if !value.is_empty() {
            self.variables.push((name, value.to_owned()));
        }
        self
    }

    pub fn run(&self) -> Outcome {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mesh-cni"));
        command.env_clear().envs(self.variables.iter().map(|(n, v)| (n, v)));
        let mut child = command
            .current_dir(Path::new("/"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // It may have ended before it read all.
        let _ = child.stdin.take().unwrap().write_all(self.input.as_bytes());
        let output = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
        let text = String::from_utf8(output.stdout).unwrap();
        let json = match text.as_str() {
            "" => Value::Null,
            text => serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}")),
        };
        Outcome { code: output.status.code(), json }
    }
}
