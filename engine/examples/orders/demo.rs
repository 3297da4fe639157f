//! The service as its users see it: a few requests over HTTP, and what the page would show.

use std::error::Error;
use std::io::{BufRead, BufReader};
use std::time::Duration;

use serde_json::{Value, json};
use ureq::Agent;

type Failure = Box<dyn Error + Send + Sync>;

pub fn show(url: &str) -> Result<(), Failure> {
    let settings = Agent::config_builder().http_status_as_error(false);
    let agent: Agent = settings.timeout_global(Some(Duration::from_secs(30))).build().into();
    let post = |path: &str, key: &str, body: Option<Value>| {
        let body = body.map_or(String::new(), |body| body.to_string());
        let request = agent.post(format!("{url}{path}")).header("idempotency-key", key);
        let mut answer = request.content_type("application/json").send(&body)?;
        let replayed = answer.headers().contains_key("idempotent-replayed");
        let note = if replayed { ", the answer of before" } else { "" };
        let said = answer.body_mut().read_to_string()?;
        println!("POST {path} {body}\n  {}{note}: {said}", answer.status());
        serde_json::from_str::<Value>(&said).map_err(Failure::from)
    };
    post("/orders/1", "101", Some(json!({ "item": "Darjeeling, second flush", "quantity": 2 })))?;
    post("/orders/2", "102", Some(json!({ "item": "Teapot", "quantity": 1 })))?;
    post("/orders/3", "103", Some(json!({ "item": "Gunpowder", "quantity": 0 })))?;
    let newest = post("/orders/1/ship", "104", None)?;
    post("/orders/1/ship", "104", None)?;
    post("/orders/1/ship", "105", None)?;

    // A projection follows a moment later: the board, or an event behind it, is as new as the last answer.
    println!("\nThe page is told:");
    let mut answer = agent.get(format!("{url}/events")).call()?;
    let newest = format!("id: {}", newest["position"].as_str().unwrap_or_default());
    let mut reached = false;
    for line in BufReader::new(answer.body_mut().as_reader()).lines() {
        let line = line?;
        println!("  {line}");
        reached |= line == newest;
        if reached && line.is_empty() {
            break;
        }
    }
    Ok(())
}
