//! A headless Chromium, spoken to by its DevTools protocol over a pair of pipes. What its console says is kept.

use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, Command};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{Process, program, within};

/// Its start on a busy machine; anything else takes far less.
const DEADLINE: Duration = Duration::from_secs(60);

pub struct Browser {
    input: ChildStdin,
    messages: Receiver<Value>,
    /// Of the tab, when there is one.
    session: Option<String>,
    number: u64,
    /// Errors, warnings and violations of the page's policy.
    complaints: Vec<String>,
    _process: Process,
    _profile: TempDir,
}

impl Browser {
    pub fn start() -> Browser {
        let profile = tempfile::tempdir().unwrap();
        // Commands come in by descriptor 3, answers leave by 4.
        let mut command = Command::new("sh");
        command.args(["-c", "exec \"$0\" \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>&1"]);
        command.arg(program("chromium-headless-shell", "chromium-headless-shell"));
        command.args(["--no-sandbox", "--disable-gpu", "--remote-debugging-pipe"]);
        command.arg(format!("--user-data-dir={}", profile.path().display()));
        let (process, input, output) = Process::piped(&mut command);
        let (sender, messages) = channel();
        std::thread::spawn(move || {
            for message in BufReader::new(output).split(0).map_while(Result::ok) {
                // Who asked has a deadline and may be gone.
                let _ = sender.send(serde_json::from_slice(&message).unwrap());
            }
        });
        let mut browser = Browser {
            input,
            messages,
            session: None,
            number: 0,
            complaints: Vec::new(),
            _process: process,
            _profile: profile,
        };
        let tab = browser.call("Target.createTarget", json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": tab["targetId"], "flatten": true });
        let attached = browser.call("Target.attachToTarget", attach);
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    pub fn call(&mut self, method: &str, params: Value) -> Value {
        self.number += 1;
        let mut message = json!({ "id": self.number, "method": method, "params": params });
        if let Some(session) = &self.session {
            message["sessionId"] = session.as_str().into();
        }
        self.input.write_all(format!("{message}\0").as_bytes()).unwrap();
        loop {
            let answer = self.messages.recv_timeout(DEADLINE);
            let answer = answer.unwrap_or_else(|error| panic!("{method}: no answer: {error}"));
            if answer["id"] == self.number {
                assert!(answer.get("error").is_none(), "{method}: {answer}");
                return answer["result"].clone();
            }
            self.note(&answer);
        }
    }

    fn note(&mut self, event: &Value) {
        let said = match event["method"].as_str() {
            Some("Runtime.exceptionThrown" | "Runtime.consoleAPICalled" | "Log.entryAdded") => {
                event["params"].to_string()
            }
            // Whatever is asked of anybody.
            Some("Network.requestWillBeSent") => {
                let url = event["params"]["request"]["url"].as_str().unwrap();
                let is_own = ["/", "/api/v1/history"].iter().any(|path| {
                    url.splitn(4, '/')
                        .nth(3)
                        .map(|it| format!("/{}", it.split('?').next().unwrap()))
                        == Some((*path).to_owned())
                });
                if is_own || url.contains("/api/v1/pools/") || url == "about:blank" {
                    return;
                }
                format!("a request for {url}")
            }
            _ => return,
        };
        self.complaints.push(said);
    }

    /// What was complained of since the last time.
    pub fn complaints(&mut self) -> Vec<String> {
        self.evaluate("0");
        std::mem::take(&mut self.complaints)
    }

    /// The value of an expression in the page.
    pub fn evaluate(&mut self, expression: &str) -> Value {
        let params =
            json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let answer = self.call("Runtime.evaluate", params);
        assert!(answer.get("exceptionDetails").is_none(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    pub fn wait_until(&mut self, expression: &str) {
        let is_so = within(Duration::from_secs(20), || self.evaluate(expression) == true);
        assert!(
            is_so,
            "waited in vain for {expression}: {}",
            self.evaluate("document.body.innerText")
        );
    }

    pub fn open(&mut self, url: &str) {
        self.call("Page.navigate", json!({ "url": url }));
        self.wait_until(&format!(
            "document.readyState === 'complete' && location.href === '{url}'"
        ));
    }

    /// Another window and scheme of colours.
    pub fn show(&mut self, (width, height): (u32, u32), scheme: &str) {
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.call("Emulation.setDeviceMetricsOverride", metrics);
        let feature = json!({ "name": "prefers-color-scheme", "value": scheme });
        self.call("Emulation.setEmulatedMedia", json!({ "features": [feature] }));
    }

    /// A picture of the window, as PNG.
    pub fn picture(&mut self) -> Vec<u8> {
        let picture = self.call("Page.captureScreenshot", json!({ "format": "png" }));
        from_base64(picture["data"].as_str().unwrap())
    }
}

fn from_base64(text: &str) -> Vec<u8> {
    let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bytes, mut bits, mut count) = (Vec::new(), 0u32, 0);
    for letter in text.bytes().take_while(|letter| *letter != b'=') {
        let six = letters.iter().position(|it| *it == letter).unwrap();
        bits = bits << 6 | six as u32;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    bytes
}
