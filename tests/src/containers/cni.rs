//! A CNI plugin, run as a container runtime would.

use std::{
    fmt,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::node::Node;

/// Where Debian keeps the specification's own plugins.
pub const REFERENCE_PLUGINS: &str = "/usr/lib/cni";

/// A plugin and the configuration that it is run with.
#[derive(Debug, Clone)]
pub struct CniPlugin<'a> {
    node: &'a Node,
    program: PathBuf,
    config: Value,
}

/// What a plugin answered when it failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CniError {
    /// Its code.
    pub code: u64,
    /// Its message and details.
    pub text: String,
}

impl fmt::Display for CniError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error {}: {}", self.code, self.text)
    }
}

impl std::error::Error for CniError {}

impl<'a> CniPlugin<'a> {
    /// `mesh-cni` on `node`, for a network of its daemon.
    pub fn mesh(node: &'a Node, network: &str) -> Result<Self> {
        let program = node.program("mesh-cni")?;
        let config = json!({
            "cniVersion": "1.1.0", "name": network, "type": "mesh-cni", "network": network, "socket": node.socket(),
        });
        Ok(Self { node, program, config })
    }

    /// One of Debian's.
    pub fn reference(node: &'a Node, config: Value) -> Result<Self> {
        let name = config["type"].as_str().context("a configuration without a type")?;
        let program = Path::new(REFERENCE_PLUGINS).join(name);
        Ok(Self { node, program, config })
    }

    /// With further fields in its configuration.
    pub fn with(&self, fields: Value) -> Self {
        let mut plugin = self.clone();
        if let (Some(config), Some(fields)) = (plugin.config.as_object_mut(), fields.as_object()) {
            config.extend(fields.clone());
        }
        plugin
    }

    /// The command line for an operation on interface `eth0` of a container.
    pub fn command(&self, operation: &str, container: &str, namespace: &Path) -> Result<Command> {
        let mut command = self.node.command(&self.program)?;
        let path = format!("/opt/cni/bin:{REFERENCE_PLUGINS}");
        let variables = [("CNI_COMMAND", operation), ("CNI_CONTAINERID", container), ("CNI_IFNAME", "eth0")];
        command.env_clear().envs(variables).env("CNI_NETNS", namespace).env("CNI_PATH", path);
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        Ok(command)
    }

    /// Runs it; what it prints, null where that is nothing. An error that it answers is a [`CniError`].
    pub fn call(&self, operation: &str, container: &str, namespace: &Path) -> Result<Value> {
        self.run(self.command(operation, container, namespace)?)
    }

    /// Runs a command line of [`CniPlugin::command`].
    pub fn run(&self, mut command: Command) -> Result<Value> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| self.program.display().to_string())?;
        let mut input = child.stdin.take().context("no standard input")?;
        input.write_all(self.config.to_string().as_bytes()).context("the configuration")?;
        drop(input);
        let output = child.wait_with_output().context("waiting for the plugin")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let answer: Value = match text.trim() {
            "" => Value::Null,
            text => serde_json::from_str(text).with_context(|| text.to_owned())?,
        };
        if output.status.success() {
            return Ok(answer);
        }
        let part = |key: &str| answer[key].as_str().unwrap_or_default();
        match answer["code"].as_u64() {
            Some(code) => {
                Err(CniError { code, text: format!("{}: {}", part("msg"), part("details")) }.into())
            }
            None => bail!("{}: {text}{}", output.status, String::from_utf8_lossy(&output.stderr)),
        }
    }

    /// Runs it; it has to fail with an answer.
    pub fn refused(&self, operation: &str, container: &str, namespace: &Path) -> Result<CniError> {
        match self.call(operation, container, namespace) {
            Ok(answer) => bail!("{operation} of {container} was not refused: {answer}"),
            Err(error) => error.downcast::<CniError>(),
        }
    }
}
