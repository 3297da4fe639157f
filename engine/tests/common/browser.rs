//! A Chromium without a window, spoken to through its DevTools protocol: JSON over a WebSocket.
//!
//! Crates that wrap the protocol are generated from one version of it and refuse what a later browser says. This needs ten of
//! its commands, and looks at the fields that it knows.

use std::{
    env,
    io::{self, BufRead, BufReader},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tungstenite::{Message, WebSocket};

use crate::skip::skip;

/// Where Chromium is: what `CHROMIUM` names, or the first of its usual names in the path.
pub fn chromium() -> Option<PathBuf> {
    let named = env::var_os("CHROMIUM").map(PathBuf::from);
    let paths = env::var_os("PATH").unwrap_or_default();
    let usual = env::split_paths(&paths).flat_map(|folder| {
        ["chromium", "chromium-browser", "google-chrome"].map(|name| folder.join(name))
    });
    named.into_iter().chain(usual).find(|path| path.is_file())
}

/// Where Chromium is. Where it is not, says what is therefore not checked.
pub fn chromium_for(what: &str) -> Option<PathBuf> {
    let found = chromium();
    if found.is_none() {
        skip(what, "no Chromium");
    }
    found
}

/// A browser with one tab.
#[derive(Debug)]
pub struct Browser {
    process: Child,
    socket: WebSocket<TcpStream>,
    session: Option<String>,
    calls: u64,
    /// What the browser told since it was last asked.
    events: Vec<Value>,
    _profile: TempDir,
}

impl Browser {
    /// Starts one.
    pub fn start(chromium: &Path) -> Browser {
        let profile = tempfile::tempdir().expect("a folder for the browser");
        let mut process = Command::new(chromium)
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--no-first-run",
            ])
            .args([
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
            ])
            .args(["--disable-dev-shm-usage", "--remote-debugging-port=0"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .stderr(Stdio::piped())
            .spawn()
            .expect("Chromium starts");
        let mut lines = BufReader::new(process.stderr.take().expect("it is piped"));
        let mut address = None;
        let mut said = String::new();
        while address.is_none() {
            let before = said.len();
            let read = lines.read_line(&mut said).expect("Chromium's messages can be read");
            assert!(read > 0, "Chromium ended before it listened: {said}");
            address =
                said[before..].trim().strip_prefix("DevTools listening on ").map(str::to_owned);
        }
        // A full pipe would stop it.
        thread::spawn(move || io::copy(&mut lines, &mut io::sink()));
        let address = address.expect("the loop ends with one");
        let host = address.trim_start_matches("ws://").split('/').next().expect("it has a host");
        let stream = TcpStream::connect(host).expect("Chromium listens");
        let (socket, _) = tungstenite::client(&address, stream).expect("Chromium shakes hands");
        let mut browser = Browser {
            process,
            socket,
            session: None,
            calls: 0,
            events: Vec::new(),
            _profile: profile,
        };
        let tab = browser.call("Target.createTarget", json!({ "url": "about:blank" }));
        let tab = json!({ "targetId": tab["targetId"], "flatten": true });
        let attached = browser.call("Target.attachToTarget", tab);
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    /// Says something to the browser and hears its answer.
    pub fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.calls += 1;
        let mut call = json!({ "id": self.calls, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            call["sessionId"] = json!(session);
        }
        self.socket.send(Message::text(call.to_string())).expect("Chromium is there");
        loop {
            let message = self.hear();
            if message["id"] == json!(self.calls) {
                assert!(message["error"].is_null(), "{method}: {}", message["error"]);
                return message["result"].clone();
            }
            self.events.push(message);
        }
    }

    fn hear(&mut self) -> Value {
        loop {
            if let Message::Text(text) = self.socket.read().expect("Chromium is there") {
                return serde_json::from_str(&text).expect("it speaks JSON");
            }
        }
    }

    /// Opens a page and waits until it is loaded.
    pub fn open(&mut self, url: &str) {
        self.events.clear();
        self.call("Page.navigate", json!({ "url": url }));
        let loaded = |event: &Value| event["method"] == "Page.loadEventFired";
        while !self.events.iter().any(loaded) {
            let event = self.hear();
            self.events.push(event);
        }
    }

    /// The value of an expression in the page; of a promise, what it comes to.
    pub fn evaluate(&mut self, expression: &str) -> Value {
        let asked =
            json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let answer = self.call("Runtime.evaluate", asked);
        assert!(
            answer["exceptionDetails"].is_null(),
            "{expression}: {}",
            answer["exceptionDetails"]
        );
        answer["result"]["value"].clone()
    }

    /// Waits until what was changed has been laid out and painted: only where the page may run scripts.
    pub fn settle(&mut self) {
        let frames = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done))))";
        self.evaluate(frames);
    }

    /// A window of this width, with or without the wish for dark colours.
    pub fn show(&mut self, width: u32, scheme: &str) {
        let phone = width < 600;
        let size =
            json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": phone });
        self.call("Emulation.setDeviceMetricsOverride", size);
        let feature = json!({ "name": "prefers-color-scheme", "value": scheme });
        self.call("Emulation.setEmulatedMedia", json!({ "features": [feature] }));
    }

    /// Everything that a sound page does not do: messages to the console, exceptions, dialogues, requests for anything but itself
    /// and what else the server that it is from has.
    pub fn complaints(&mut self) -> Vec<String> {
        // What the page did until now has been told when this is answered.
        self.settle();
        let wrong = |event: &Value| match event["method"].as_str() {
            Some("Network.requestWillBeSent") => {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                let url = text(&event["params"]["request"]["url"]);
                let page = text(&event["params"]["documentURL"]);
                let origin = page.starts_with("http://").then(|| page.splitn(4, '/').take(3));
                let server = origin.map(|parts| parts.collect::<Vec<_>>().join("/") + "/");
                !(url == page && url.starts_with("file:")
                    || server.is_some_and(|server| url.starts_with(&server))
                    || url.starts_with("data:"))
            }
            Some(method) => [
                "Log.entryAdded",
                "Page.javascriptDialogOpening",
                "Runtime.consoleAPICalled",
                "Runtime.exceptionThrown",
            ]
            .contains(&method),
            None => false,
        };
        self.events.iter().filter(|event| wrong(event)).map(Value::to_string).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Whatever state a failed test left it in: it is ours, and it goes.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
