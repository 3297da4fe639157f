//! The example service as a process, and a client of it.

use std::env;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use ureq::{Agent, BodyReader, http::Response};

use crate::common::{LONG, in_time};

/// The example as it stands now. `cargo test` alone builds it, `cargo test --test service` does not.
pub fn example() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        // This test is `<target>/<profile>/deps/service-…`.
        let test = env::current_exe().unwrap();
        let folder = test.parent().and_then(Path::parent).unwrap();
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--package", "annals", "--example", "orders"]);
        cargo.arg("--target-dir").arg(folder.parent().unwrap());
        if folder.ends_with("release") {
            cargo.arg("--release");
        }
        assert!(cargo.status().unwrap().success(), "the example is built");
        folder.join("examples/orders")
    })
}

/// The service, listening.
pub struct Service {
    pub process: Child,
    pub url: String,
    agent: Agent,
    /// The highest position that was acknowledged.
    newest: AtomicU64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub status: u16,
    pub body: Value,
    pub replayed: bool,
}

impl Service {
    pub fn start(folder: &Path) -> Service {
        Service::start_at(folder, "0")
    }

    pub fn start_at(folder: &Path, port: &str) -> Service {
        let mut command = Command::new(example());
        command.arg("--dir").arg(folder).args(["--port", port]).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let output = process.stdout.take().unwrap();
        let first = in_time("the service starts", || BufReader::new(output).lines().next());
        let first = first.expect("it says where it listens").unwrap();
        let url = first.strip_prefix("listening on ").expect("the address").to_owned();
        let settings = Agent::config_builder().http_status_as_error(false);
        // An idle connection of before would fail after a restart.
        let settings = settings.max_idle_connections(0).timeout_recv_response(Some(LONG));
        let agent = settings.timeout_recv_body(Some(LONG)).build().into();
        Service { process, url, agent, newest: AtomicU64::new(0) }
    }

    pub fn port(&self) -> &str {
        self.url.rsplit(':').next().unwrap()
    }

    /// As the power goes.
    pub fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    pub fn terminate(mut self) -> ExitStatus {
        let id = self.process.id().cast_signed();
        // SAFETY: the process is ours and was not waited for, so the number is its own.
        assert_eq!(unsafe { libc::kill(id, libc::SIGTERM) }, 0);
        let deadline = Instant::now() + LONG;
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the service does not end");
            thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn try_post(&self, path: &str, key: &str, body: &str) -> Result<Answer, ureq::Error> {
        let request = self.agent.post(format!("{}{path}", self.url));
        let request = request.content_type("application/json");
        let request = match key {
            "" => request,
            key => request.header("idempotency-key", key),
        };
        let answer = answer(request.send(body)?)?;
        if let Some(position) = answer.body["position"].as_str() {
            self.newest.fetch_max(position.parse().unwrap(), Ordering::Relaxed);
        }
        Ok(answer)
    }

    pub fn post(&self, path: &str, key: &str, body: &str) -> Answer {
        self.try_post(path, key, body).unwrap()
    }

    pub fn place(&self, id: &str, key: &str) -> Answer {
        self.post(&format!("/orders/{id}"), key, r#"{"item":"tea","quantity":2}"#)
    }

    /// What a path stands for, each with the same key however often it is sent.
    pub fn try_write(&self, path: &str) -> Result<Answer, ureq::Error> {
        let key = if path.ends_with("/ship") { "6" } else { "5" };
        self.try_post(path, key, r#"{"item":"tea","quantity":2}"#)
    }

    pub fn ship(&self, id: &str, key: &str) -> Answer {
        self.post(&format!("/orders/{id}/ship"), key, "")
    }

    pub fn get(&self, path: &str) -> Answer {
        answer(self.agent.get(format!("{}{path}", self.url)).call().unwrap()).unwrap()
    }

    pub fn version(&self, id: &str) -> Value {
        self.get(&format!("/orders/{id}")).body["version"].clone()
    }

    /// The events, once the projection, which follows a moment later, has what was acknowledged.
    pub fn feed(&self, last: Option<&str>) -> Feed {
        let deadline = Instant::now() + LONG;
        let reached = || self.get("/health").body["position"].as_str().unwrap().parse();
        while reached().is_ok_and(|at: u64| at < self.newest.load(Ordering::Relaxed)) {
            assert!(Instant::now() < deadline, "the projection stands still");
            thread::sleep(Duration::from_millis(1));
        }
        let request = self.agent.get(format!("{}/events", self.url));
        let request = match last {
            Some(last) => request.header("last-event-id", last),
            None => request,
        };
        let response = request.call().unwrap();
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Feed(BufReader::new(response.into_body().into_reader()))
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _gone = self.process.kill();
        let _gone = self.process.wait();
    }
}

fn answer(mut response: Response<ureq::Body>) -> Result<Answer, ureq::Error> {
    let status = response.status().as_u16();
    let replayed = response.headers().contains_key("idempotent-replayed");
    let body = response.body_mut().read_to_string()?;
    Ok(Answer { status, body: serde_json::from_str(&body).unwrap(), replayed })
}

/// Server-sent events as they come.
pub struct Feed(BufReader<BodyReader<'static>>);

#[derive(Clone, Debug)]
pub struct Message {
    pub event: String,
    pub id: String,
    pub data: Value,
}

impl Message {
    /// Which order it is about, and what happened to it.
    pub fn what(&self) -> (String, String) {
        let text = |name: &str| self.data[name].as_str().unwrap().to_owned();
        (text("order"), text("event"))
    }
}

impl Iterator for Feed {
    type Item = Message;

    /// The next message; `None` when the connection ends.
    fn next(&mut self) -> Option<Message> {
        let mut message = Message { event: String::new(), id: String::new(), data: Value::Null };
        let mut line = String::new();
        loop {
            line.clear();
            if self.0.read_line(&mut line).unwrap_or(0) == 0 {
                return None;
            }
            match line.trim_end().split_once(": ") {
                Some(("event", event)) => message.event = event.to_owned(),
                Some(("id", id)) => message.id = id.to_owned(),
                Some(("data", data)) => message.data = serde_json::from_str(data).unwrap(),
                Some(_) => {}
                None if message.event.is_empty() => {}
                None => return Some(message),
            }
        }
    }
}
