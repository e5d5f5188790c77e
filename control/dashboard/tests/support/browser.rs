//! Chromium without a window, driven by WebDriver (W3C): plain HTTP and JSON to `chromedriver` on this machine.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The longest wait for anything on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// The name of an element's reference in WebDriver.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// Connects to a port of the loopback that `chromedriver` listens at.
pub type Dial = Box<dyn Fn(u16) -> io::Result<TcpStream>>;

/// See the module. Dropped, the browser ends and its profile goes.
pub struct Browser {
    driver: Child,
    dial: Dial,
    port: u16,
    session: String,
    _profile: TempDir,
}

impl Browser {
    /// A browser with a fresh profile, which takes the certificate as somebody does who has compared its fingerprint.
    pub fn new() -> Self {
        let dial = |port| TcpStream::connect(("127.0.0.1", port));
        Self::elsewhere(Command::new("chromedriver"), Box::new(dial))
    }

    /// The same where `driver` runs `chromedriver`, such as another network namespace.
    pub fn elsewhere(mut driver: Command, dial: Dial) -> Self {
        let profile = tempfile::tempdir().unwrap();
        let mut driver = driver
            .args(["--port=0", "--log-level=WARNING"])
            .env("HOME", profile.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver does not start; `cargo xtask setup` installs Debian's chromium-driver");
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = lines
            .find_map(|line| {
                line.unwrap()
                    .split("started successfully on port ")
                    .nth(1)?
                    .trim_end_matches('.')
                    .parse()
                    .ok()
            })
            .expect("chromedriver names no port");
        std::thread::spawn(move || lines.for_each(drop));
        let folder = profile.path().join("profile");
        let args = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
            "--disable-extensions",
            "--hide-scrollbars",
            &format!("--user-data-dir={}", folder.display()),
        ];
        let capabilities = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "acceptInsecureCerts": true,
            "goog:chromeOptions": {"binary": "/usr/bin/chromium", "args": args},
        }}});
        let mut browser = Self { driver, dial, port, session: String::new(), _profile: profile };
        let begun = browser.call("POST", "/session", &capabilities).expect("chromium does not start");
        browser.session = format!("/session/{}", begun["sessionId"].as_str().unwrap());
        browser
    }

    /// Opens an address.
    pub fn open(&self, url: &str) {
        self.command("url", &json!({ "url": url }));
    }

    /// What a script gives back.
    pub fn script(&self, script: &str) -> Value {
        self.command("execute/sync", &json!({"script": script, "args": []}))
    }

    /// Waits until an expression is true.
    pub fn wait(&self, condition: &str) {
        let begun = Instant::now();
        while self.script(&format!("return Boolean({condition})")) != json!(true) {
            if begun.elapsed() > PATIENCE {
                let text = self.script("return location.href + '\\n' + document.body.innerText");
                panic!("{condition} does not come true; the page says: {}", text.as_str().unwrap_or(""));
            }
            sleep(Duration::from_millis(50));
        }
    }

    /// Waits until the text of what a selector finds has `text` in it.
    pub fn wait_text(&self, selector: &str, text: &str) {
        let (selector, text) = (json!(selector), json!(text));
        self.wait(&format!(
            "[...document.querySelectorAll({selector})].some((e) => e.innerText.includes({text}))"
        ));
    }

    /// Clicks what a selector finds, as a person does: it has to be seen. What was replaced meanwhile is looked for again.
    pub fn click(&self, selector: &str) {
        self.try_until(selector, |element| self.try_command(&format!("element/{element}/click"), &json!({})));
    }

    /// Types into what a selector finds.
    pub fn enter(&self, selector: &str, text: &str) {
        self.try_until(selector, |element| {
            self.try_command(&format!("element/{element}/clear"), &json!({}))?;
            self.try_command(&format!("element/{element}/value"), &json!({ "text": text }))
        });
    }

    fn try_until(&self, selector: &str, act: impl Fn(&str) -> Result<Value, String>) {
        let begun = Instant::now();
        loop {
            let found = self.try_command("element", &json!({"using": "css selector", "value": selector}));
            let done = found.and_then(|found| act(found[ELEMENT].as_str().unwrap_or_default()));
            match done {
                Ok(_) => return,
                Err(error) if begun.elapsed() > PATIENCE => panic!("{selector}: {error}"),
                Err(_) => sleep(Duration::from_millis(50)),
            }
        }
    }

    /// Presses keys one after the other, on whatever has the focus. Tab is `\u{e004}`, Enter `\u{e007}`.
    pub fn keys(&self, keys: &str) {
        let strokes = keys
            .chars()
            .flat_map(|key| ["keyDown", "keyUp"].map(|kind| json!({"type": kind, "value": key.to_string()})));
        let actions: Vec<Value> = strokes.collect();
        self.command("actions", &json!({"actions": [{"type": "key", "id": "keys", "actions": actions}]}));
    }

    /// Goes back one step.
    pub fn back(&self) {
        self.command("back", &json!({}));
    }

    /// Makes the page so large, in CSS pixels.
    pub fn resize(&self, width: u32, height: u32) {
        let metrics =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600});
        self.developer("Emulation.setDeviceMetricsOverride", &metrics);
    }

    /// What the user prefers: `prefers-color-scheme`, `prefers-reduced-motion`.
    pub fn prefer(&self, feature: &str, value: &str) {
        let features = json!({"features": [{"name": feature, "value": value}]});
        self.developer("Emulation.setEmulatedMedia", &features);
    }

    /// A command of the developer tools.
    pub fn developer(&self, command: &str, params: &Value) -> Value {
        self.command("goog/cdp/execute", &json!({"cmd": command, "params": params}))
    }

    /// What is seen, as PNG.
    pub fn picture(&self) -> Vec<u8> {
        let shot = self.developer("Page.captureScreenshot", &json!({"format": "png"}));
        STANDARD.decode(shot["data"].as_str().unwrap()).unwrap()
    }

    fn command(&self, command: &str, body: &Value) -> Value {
        self.try_command(command, body).unwrap_or_else(|error| panic!("{command} {body}: {error}"))
    }

    fn try_command(&self, command: &str, body: &Value) -> Result<Value, String> {
        self.call("POST", &format!("{}/{command}", self.session), body)
    }

    fn call(&self, method: &str, path: &str, body: &Value) -> Result<Value, String> {
        let body = body.to_string();
        let mut stream = (self.dial)(self.port).map_err(|e| e.to_string())?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(|e| e.to_string())?;
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n\
             connection: close\r\ncontent-length: {length}\r\n\r\n"
        );
        stream.write_all(&[head.as_bytes(), body.as_bytes()].concat()).map_err(|e| e.to_string())?;
        let mut answer = BufReader::new(stream);
        let (mut code, mut length, mut line) = (String::new(), 0, String::new());
        while answer.read_line(&mut line).map_err(|e| e.to_string())? > 2 {
            let lower = line.trim().to_lowercase();
            if let Some(value) = lower.strip_prefix("content-length:") {
                length = value.trim().parse().map_err(|_| lower.clone())?;
            } else if let Some(status) = lower.strip_prefix("http/1.1 ") {
                code = status[..3].to_owned();
            }
            line.clear();
        }
        let mut body = vec![0; length];
        answer.read_exact(&mut body).map_err(|e| e.to_string())?;
        let value: Value = serde_json::from_slice(&body).map_err(|e| e.to_string())?;
        match code.as_str() {
            "200" => Ok(value["value"].clone()),
            _ => Err(value["value"]["message"].as_str().unwrap_or_default().to_owned()),
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() {
            // Ends the browser and all of its processes.
            let _ = self.call("DELETE", &self.session, &json!({}));
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
