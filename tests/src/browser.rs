//! A headless Chromium, driven over WebDriver: a small HTTP client is all that takes.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::client::Client;
use crate::skip::skipped;
use crate::wait;

/// A browser with one window; it ends when dropped.
#[derive(Debug)]
pub struct Browser {
    driver: Child,
    client: Client,
    session: String,
    _profile: TempDir,
}

/// How a window looks.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    pub width: u32,
    pub height: u32,
    pub scheme: &'static str,
}

impl Browser {
    /// `None` after saying that `test` is skipped, where there is no Chromium or no driver for it.
    pub fn start_or_skip(test: &str) -> Option<Self> {
        let found = Path::new("/usr/bin/chromium").is_file();
        let driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let (Ok(mut driver), true) = (driver, found) else {
            skipped(test, "there is no chromium with a chromedriver (Debian: chromium-driver)");
            return None;
        };
        let said = driver.stdout.take().expect("a pipe was asked for");
        let port = BufReader::new(said).lines().map_while(Result::ok).find_map(|line| {
            let (_, after) = line.split_once("started successfully on port ")?;
            after.trim_end_matches('.').parse::<u16>().ok()
        });
        let port = port.expect("the driver says where it listens");
        let client = Client::new(SocketAddr::from(([127, 0, 0, 1], port)));
        let profile = tempfile::tempdir().expect("there is a folder for temporary files");
        let session = String::new();
        let mut browser = Self { driver, client, session, _profile: profile };
        browser.begin();
        Some(browser)
    }

    fn begin(&mut self) {
        let profile = format!("--user-data-dir={}", self._profile.path().display());
        let arguments = [
            "--headless=new",
            // Tests often run as root, whose processes Chromium's sandbox does not take.
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--no-first-run",
            "--no-default-browser-check",
            &profile,
        ];
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "goog:chromeOptions": { "args": arguments, "binary": "/usr/bin/chromium" },
            "goog:loggingPrefs": { "browser": "ALL", "performance": "ALL" },
        } } });
        let answer = self.post("/session", &wanted);
        self.session = answer["sessionId"].as_str().expect("a session").to_owned();
    }

    pub fn open(&mut self, address: SocketAddr) {
        let url = format!("http://{address}/");
        self.of_session("/url", &json!({ "url": url }));
    }

    /// Runs a script in the page and gives what it returns.
    pub fn run(&mut self, script: &str, arguments: &[Value]) -> Value {
        self.of_session("/execute/sync", &json!({ "script": script, "args": arguments }))
    }

    /// Waits until the script gives true.
    pub fn wait_until(&mut self, what: &str, script: &str) {
        let script = format!("return Boolean({script})");
        wait::until_true(what, || self.run(&script, &[]) == Value::Bool(true));
    }

    pub fn text_of(&mut self, selector: &str) -> String {
        let script = "return document.querySelector(arguments[0])?.innerText ?? ''";
        self.run(script, &[json!(selector)]).as_str().unwrap_or_default().to_owned()
    }

    pub fn look(&mut self, look: Look) {
        let Look { width, height, scheme } = look;
        let metrics = json!({
            "width": width, "height": height, "deviceScaleFactor": 2, "mobile": width < 600,
        });
        self.command("Emulation.setDeviceMetricsOverride", &metrics);
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.command("Emulation.setEmulatedMedia", &json!({ "features": features }));
    }

    /// A picture of the whole page, as PNG.
    pub fn picture(&mut self) -> Vec<u8> {
        let whole = json!({ "captureBeyondViewport": true, "format": "png" });
        let answer = self.command("Page.captureScreenshot", &whole);
        base64(answer["data"].as_str().unwrap_or_default())
    }

    /// What the console said since the last call.
    pub fn console(&mut self) -> Vec<String> {
        let entries = self.of_session("/se/log", &json!({ "type": "browser" }));
        let entries = entries.as_array().cloned().unwrap_or_default();
        entries.iter().map(|entry| entry["message"].to_string()).collect()
    }

    /// The addresses that pages asked for since the last call.
    pub fn requests(&mut self) -> Vec<String> {
        let entries = self.of_session("/se/log", &json!({ "type": "performance" }));
        let entries = entries.as_array().cloned().unwrap_or_default();
        let asked = entries.iter().filter_map(|entry| {
            let event: Value = serde_json::from_str(entry["message"].as_str()?).ok()?;
            let message = &event["message"];
            let asked = message["method"] == "Network.requestWillBeSent";
            asked.then(|| message["params"]["request"]["url"].as_str().map(str::to_owned))?
        });
        asked.collect()
    }

    /// A command of the browser's own protocol.
    fn command(&mut self, name: &str, parameters: &Value) -> Value {
        self.of_session("/goog/cdp/execute", &json!({ "cmd": name, "params": parameters }))
    }

    fn of_session(&mut self, path: &str, body: &Value) -> Value {
        let path = format!("/session/{}{path}", self.session);
        self.post(&path, body)
    }

    fn post(&mut self, path: &str, body: &Value) -> Value {
        let answer = self.client.post(path, &body.to_string());
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.json()["value"].clone()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let path = format!("/session/{}", self.session);
        let _gone = self.client.request("DELETE", &path, &[], b"");
        let _gone = self.driver.kill();
        let _gone = self.driver.wait();
    }
}

fn base64(text: &str) -> Vec<u8> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bytes, mut bits, mut have) = (Vec::new(), 0_u32, 0);
    for digit in text.bytes().filter_map(|c| DIGITS.iter().position(|&digit| digit == c)) {
        bits = bits << 6 | u32::try_from(digit).expect("below 64");
        have += 6;
        if have >= 8 {
            have -= 8;
            bytes.extend((bits >> have).to_le_bytes().first());
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read() {
        assert_eq!(base64("aGVsbG8sIHdvcmxk"), b"hello, world");
        assert_eq!(base64("YQ=="), b"a");
    }
}
