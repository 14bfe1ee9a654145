//! Chromium without a window, by its DevTools protocol over a pipe.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{namespace::Namespace, process::Daemon, wait::wait_until};

/// Longest time that an answer of the browser may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Everything that a browser does without being asked is off.
const OPTIONS: [&str; 13] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-default-apps",
    "--disable-extensions",
    "--remote-debugging-pipe",
    "about:blank",
];
/// The bits of the DevTools protocol for keys that are held.
const SHIFT: u8 = 8;

/// A browser with one page, in a namespace. Dropping it ends it.
#[derive(Debug)]
pub struct Browser {
    child: Child,
    commands: ChildStdin,
    messages: Receiver<Value>,
    last: u64,
    session: String,
    events: Vec<Value>,
    _directory: TempDir,
}

impl Browser {
    /// Starts Chromium with an empty profile.
    ///
    /// # Errors
    ///
    /// Fails when it is not installed or does not answer.
    pub fn start(namespace: &Namespace) -> Result<Self> {
        let directory = Daemon::directory("browser")?;
        let log = fs::File::create(directory.path().join("log"))?;
        // The protocol's pipes have the numbers 3 and 4.
        let mut command = namespace.command("sh")?;
        command
            .args([
                "-c",
                "exec chromium \"$@\" 3<&0 4>&1 0</dev/null 1>&2",
                "sh",
            ])
            .args(OPTIONS)
            .arg(format!("--user-data-dir={}", directory.path().display()))
            .env("HOME", directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log);
        let mut child = command.spawn().context("start chromium")?;
        let commands = child.stdin.take().context("stdin is piped")?;
        let answers = child.stdout.take().context("stdout is piped")?;
        let (sender, messages) = channel();
        // It ends with the browser.
        thread::spawn(move || {
            for message in BufReader::new(answers).split(0) {
                let Ok(message) = message else { return };
                let parsed = serde_json::from_slice(&message);
                if parsed.is_ok_and(|message: Value| sender.send(message).is_err()) {
                    return;
                }
            }
        });
        let mut browser = Self {
            child,
            commands,
            messages,
            last: 0,
            session: String::new(),
            events: Vec::new(),
            _directory: directory,
        };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }))?;
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = browser.call("Target.attachToTarget", attach)?;
        let session = attached["sessionId"].as_str();
        browser.session = session.context("the page has a session")?.to_owned();
        for domain in ["Page", "Runtime", "Network", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({}))?;
        }
        browser.call("Page.setLifecycleEventsEnabled", json!({ "enabled": true }))?;
        Ok(browser)
    }

    /// Calls a method of the protocol and returns its result.
    ///
    /// # Errors
    ///
    /// Fails when the browser refuses or does not answer in time.
    pub fn call(&mut self, method: &str, parameters: Value) -> Result<Value> {
        self.last += 1;
        let mut command = json!({ "id": self.last, "method": method, "params": parameters });
        if !self.session.is_empty() {
            command["sessionId"] = json!(self.session);
        }
        self.commands.write_all(command.to_string().as_bytes())?;
        self.commands.write_all(&[0])?;
        let id = json!(self.last);
        let answer = self.wait(method, |message| message["id"] == id)?;
        ensure!(answer.get("error").is_none(), "{method}: {answer}");
        Ok(answer["result"].clone())
    }

    /// Waits for a message; the others are kept as events.
    fn wait(&mut self, what: &str, is_wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        let end = Instant::now() + PATIENCE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.messages.recv_timeout(left) {
                Ok(message) if is_wanted(&message) => return Ok(message),
                Ok(message) => self.events.push(message),
                Err(RecvTimeoutError::Timeout) => bail!("chromium does not answer: {what}"),
                Err(RecvTimeoutError::Disconnected) => bail!("chromium has ended: {what}"),
            }
        }
    }

    /// Opens an address and waits until everything has been loaded.
    ///
    /// # Errors
    ///
    /// Fails when the page cannot be loaded.
    pub fn open(&mut self, address: &str) -> Result<()> {
        let answer = self.call("Page.navigate", json!({ "url": address }))?;
        ensure!(answer.get("errorText").is_none(), "{address}: {answer}");
        // The page before may report at this moment, too.
        let loader = &answer["loaderId"];
        let loaded = |message: &Value| {
            message["method"] == "Page.lifecycleEvent"
                && message["params"]["name"] == "load"
                && message["params"]["loaderId"] == *loader
        };
        if !self.events.iter().any(loaded) {
            self.wait("the page is loaded", loaded)?;
        }
        Ok(())
    }

    /// Evaluates an expression in the page, and what it promises.
    ///
    /// # Errors
    ///
    /// Fails when the expression throws.
    pub fn evaluate(&mut self, expression: &str) -> Result<Value> {
        let parameters = json!({
            "expression": expression, "awaitPromise": true, "returnByValue": true,
        });
        let answer = self.call("Runtime.evaluate", parameters)?;
        ensure!(
            answer.get("exceptionDetails").is_none(),
            "{expression}: {answer}"
        );
        Ok(answer["result"]["value"].clone())
    }

    /// Waits until an expression is true.
    ///
    /// # Errors
    ///
    /// Fails when it is not within a minute.
    pub fn wait_until(&mut self, expression: &str) -> Result<()> {
        let boolean = format!("Boolean({expression})");
        wait_until(expression, PATIENCE, || {
            Ok(self.evaluate(&boolean)? == json!(true))
        })
    }

    /// Presses the tabulator key, with Shift or not.
    ///
    /// # Errors
    ///
    /// Fails when the browser does not answer.
    pub fn press_tab(&mut self, with_shift: bool) -> Result<()> {
        for kind in ["rawKeyDown", "keyUp"] {
            let parameters = json!({
                "type": kind, "key": "Tab", "code": "Tab", "windowsVirtualKeyCode": 9,
                "modifiers": if with_shift { SHIFT } else { 0 },
            });
            self.call("Input.dispatchKeyEvent", parameters)?;
        }
        Ok(())
    }

    /// Sets the width of the window in pixels, and whether the user prefers dark colours.
    ///
    /// # Errors
    ///
    /// Fails when the browser does not answer.
    pub fn look(&mut self, width: u32, is_dark: bool) -> Result<()> {
        let size = json!({
            "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600,
        });
        self.call("Emulation.setDeviceMetricsOverride", size)?;
        let scheme = if is_dark { "dark" } else { "light" };
        let feature = json!({ "name": "prefers-color-scheme", "value": scheme });
        self.call(
            "Emulation.setEmulatedMedia",
            json!({ "features": [feature] }),
        )?;
        Ok(())
    }

    /// Lets pages run scripts or not, from the next one on.
    ///
    /// # Errors
    ///
    /// Fails when the browser does not answer.
    pub fn allow_scripts(&mut self, is_allowed: bool) -> Result<()> {
        let parameters = json!({ "value": !is_allowed });
        self.call("Emulation.setScriptExecutionDisabled", parameters)?;
        Ok(())
    }

    /// Returns everything that the page complained about: errors, warnings, refused content.
    #[must_use]
    pub fn complaints(&self) -> Vec<String> {
        let complaints = self.events.iter().filter(|event| {
            let parameters = &event["params"];
            match event["method"].as_str() {
                Some("Runtime.exceptionThrown") => true,
                // Another page ends what this one has asked for.
                Some("Network.loadingFailed") => parameters["canceled"] != true,
                Some("Runtime.consoleAPICalled") => true,
                Some("Log.entryAdded") => parameters["entry"]["level"] != "verbose",
                _ => false,
            }
        });
        complaints
            .map(|event| event["params"].to_string())
            .collect()
    }

    /// Returns the addresses that the browser has asked for.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        let requests = self
            .events
            .iter()
            .filter(|event| event["method"] == "Network.requestWillBeSent");
        let addresses = requests.filter_map(|event| event["params"]["request"]["url"].as_str());
        addresses.map(str::to_owned).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Its processes end with the first one.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
