//! The service as its users see it: a few requests over HTTP, and what the page would show.

use std::error::Error;
use std::io::{BufRead, BufReader};
use std::time::Duration;

use serde_json::{Value, json};
use ureq::Agent;

pub fn show(url: &str) -> Result<(), Box<dyn Error + Send + Sync>> {
    let settings = Agent::config_builder().http_status_as_error(false);
    let agent: Agent = settings.timeout_global(Some(Duration::from_secs(30))).build().into();
    let post = |path: &str, key: &str, body: Option<Value>| {
        let body = body.map_or(String::new(), |body| body.to_string());
        let request = agent.post(format!("{url}{path}")).header("idempotency-key", key);
        let mut answer = request.content_type("application/json").send(&body)?;
        let replayed = match answer.headers().contains_key("idempotent-replayed") {
            true => ", the answer of before",
            false => "",
        };
        println!("POST {path} {body}");
        println!("  {}{replayed}: {}", answer.status(), answer.body_mut().read_to_string()?);
        Ok::<(), ureq::Error>(())
    };
    post("/orders/1", "101", Some(json!({ "item": "Darjeeling, second flush", "quantity": 2 })))?;
    post("/orders/2", "102", Some(json!({ "item": "Teapot", "quantity": 1 })))?;
    post("/orders/3", "103", Some(json!({ "item": "Gunpowder", "quantity": 0 })))?;
    post("/orders/1/ship", "104", None)?;
    post("/orders/1/ship", "104", None)?;
    post("/orders/1/ship", "105", None)?;

    let mut answer = agent.get(format!("{url}/events")).call()?;
    for line in BufReader::new(answer.body_mut().as_reader()).lines() {
        if let Some(data) = line?.strip_prefix("data: ") {
            let board: Value = serde_json::from_str(data)?;
            println!("\nThe page: {} placed, {} shipped", board["placed"], board["shipped"]);
            for row in board["orders"].as_array().into_iter().flatten() {
                let [order, item, status] =
                    ["order", "item", "status"].map(|name| row[name].as_str());
                let [order, item, status] = [order, item, status].map(Option::unwrap_or_default);
                println!("  {order:>6}  {:>3} × {item:<28} {status}", row["quantity"]);
            }
            break;
        }
    }
    Ok(())
}
