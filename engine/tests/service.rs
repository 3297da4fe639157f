//! The example service as a process: asked over HTTP, killed, started again, and looked at in a browser.

mod common;

#[path = "common/browser.rs"]
mod browser;
#[path = "service/page.rs"]
mod page;
#[path = "service/process.rs"]
mod process;

use std::collections::HashMap;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use common::{LONG, directory, in_time, skip};
use process::{Answer, Service, example};
use serde_json::json;

#[test]
fn an_order_is_placed_shipped_and_read() {
    let folder = directory();
    let service = Service::start(folder.path());
    let placed = service.place("42", "");
    assert_eq!((placed.status, placed.replayed), (201, false));
    assert_eq!((&placed.body["order"], &placed.body["version"]), (&json!("42"), &json!(1)));
    let shipped = service.ship("42", "");
    assert_eq!((shipped.status, &shipped.body["version"]), (200, &json!(2)));

    let Answer { status, body, .. } = service.get("/orders/42");
    assert_eq!((status, &body["status"], &body["version"]), (200, &json!("shipped"), &json!(2)));
    let [first, second] = body["history"].as_array().unwrap().as_slice() else { panic!("{body}") };
    assert_eq!(
        (&first["event"], &first["item"], &first["quantity"]),
        (&json!("placed"), &json!("tea"), &json!(2))
    );
    assert_eq!((&second["event"], &second["version"]), (&json!("shipped"), &json!(2)));
    assert_eq!(
        (&first["position"], &second["position"]),
        (&placed.body["position"], &shipped.body["position"])
    );

    assert_eq!(service.get("/orders/43").status, 404);
    let health = service.get("/health");
    assert_eq!((health.status, &health.body["ok"]), (200, &json!(true)));
}

#[test]
fn refusals_and_bad_input_write_nothing() {
    let folder = directory();
    let service = Service::start(folder.path());
    let refused = service.ship("1", "7");
    assert_eq!(
        (refused.status, &refused.body["error"]),
        (409, &json!("the order was never placed"))
    );
    // A refusal is not kept: the same key may do it when it can be done.
    assert_eq!(service.place("1", "").status, 201);
    assert_eq!(service.place("1", "").status, 409);
    assert_eq!(service.ship("1", "7").status, 200);
    assert_eq!(service.ship("1", "8").status, 409);
    assert_eq!(service.version("1"), json!(2));

    let long = json!({ "item": "x".repeat(81), "quantity": 1 }).to_string();
    let huge = json!({ "item": "x".repeat(8192), "quantity": 1 }).to_string();
    for (body, status) in [
        ("", 400),
        ("{", 400),
        ("{}", 400),
        (r#"{"item":"tea"}"#, 400),
        (r#"{"item":"tea","quantity":"2"}"#, 400),
        (r#"{"item":"tea","quantity":0}"#, 400),
        (r#"{"item":"tea","quantity":-1}"#, 400),
        (r#"{"item":"tea","quantity":1001}"#, 400),
        (r#"{"item":"  ","quantity":1}"#, 400),
        (r#"{"item":"t\u0000a","quantity":1}"#, 400),
        (&long, 400),
        (&huge, 413),
    ] {
        let answer = service.post("/orders/2", "", body);
        assert_eq!(answer.status, status, "{body}: {answer:?}");
        assert!(answer.body["error"].is_string(), "{answer:?}");
    }
    let long = "x".repeat(41);
    for id in ["a%20b", "a%2Fb", "%FF", "ä", long.as_str()] {
        let answer = service.place(id, "");
        assert_eq!(
            (answer.status, answer.body["error"].is_string()),
            (400, true),
            "{id}: {answer:?}"
        );
    }
    for key in ["x", "-1", "18446744073709551616", "00000000-0000-0000-0000-000000000000", "\"\""] {
        assert_eq!(service.place("2", key).status, 400, "{key}");
    }
    assert_eq!(service.get("/orders/2").status, 404);
    let board = service.feed(None).next().unwrap();
    assert_eq!((&board.data["placed"], &board.data["shipped"]), (&json!(1), &json!(1)));
}

#[test]
fn a_retry_gets_the_original_answer_and_writes_once() {
    const KEY: &str = "8e03978e-40d5-43e8-bc93-6894a57f9324";
    let folder = directory();
    let service = Service::start(folder.path());
    let first = service.place("1", KEY);
    assert_eq!((first.status, first.replayed), (201, false));
    assert_eq!(service.ship("1", "1").status, 200);

    let again = |service: &Service| {
        for key in [KEY, &format!("\"{KEY}\""), &KEY.to_uppercase()] {
            let answer = service.place("1", key);
            assert_eq!(answer, Answer { replayed: true, ..first.clone() });
        }
        let shipped = service.ship("1", "1");
        assert_eq!((shipped.status, shipped.replayed), (200, true));
        assert_eq!(service.version("1"), json!(2));
    };
    again(&service);
    service.kill();
    let service = Service::start(folder.path());
    again(&service);

    // The key of one request with another is a mistake, and not answered as if it had been done.
    let other = service.post("/orders/1", KEY, r#"{"item":"tea","quantity":3}"#);
    assert_eq!((other.status, other.replayed), (422, false));
    assert_eq!(service.ship("1", KEY).status, 422);
    // On another order it is another write.
    let elsewhere = service.place("2", KEY);
    assert_eq!((elsewhere.status, elsewhere.replayed), (201, false));
}

#[test]
fn of_fifty_who_place_the_same_order_one_does() {
    let folder = directory();
    let service = Service::start(folder.path());
    let start = Barrier::new(50);
    let answers: Vec<Answer> = thread::scope(|scope| {
        let clients = (1..=50).map(|key: u64| {
            let (service, start) = (&service, &start);
            scope.spawn(move || {
                start.wait();
                // Some know of idempotency keys, some do not.
                service.place("1", &[String::new(), key.to_string()][key as usize % 2])
            })
        });
        let clients: Vec<_> = clients.collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    let count = |status| answers.iter().filter(|answer| answer.status == status).count();
    assert_eq!((count(201), count(409)), (1, 49));
    assert_eq!(service.version("1"), json!(1));
}

/// Clients who place and ship orders until the service is gone: the paths of what was acknowledged, and of what was not.
fn work_until_killed(service: Service, round: u64) -> (Vec<(String, Answer)>, Vec<String>) {
    let (acknowledged, unknown) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    let count = AtomicU64::new(0);
    let client = |number: u64| {
        for order in 0_u64.. {
            let id = format!("{round}-{number}-{order}");
            for path in [format!("/orders/{id}"), format!("/orders/{id}/ship")] {
                match service.try_write(&path) {
                    Ok(answer) => {
                        assert!([200, 201].contains(&answer.status), "{path}: {answer:?}");
                        acknowledged.lock().unwrap().push((path, answer));
                    }
                    Err(_) => return unknown.lock().unwrap().push(path),
                }
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
    };
    thread::scope(|scope| {
        for number in 0..8 {
            let client = &client;
            scope.spawn(move || client(number));
        }
        let deadline = Instant::now() + LONG;
        while count.load(Ordering::Relaxed) < 300 && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
        // SAFETY: the process is ours and was not waited for, so the number is its own.
        unsafe { libc::kill(service.process.id().cast_signed(), libc::SIGKILL) };
    });
    service.kill();
    (acknowledged.into_inner().unwrap(), unknown.into_inner().unwrap())
}

#[test]
fn what_was_acknowledged_outlives_a_kill_and_is_shown_once() {
    let folder = directory();
    let (mut acknowledged, mut unknown) = (Vec::new(), Vec::new());
    for round in 0..2 {
        let service = Service::start(folder.path());
        let (more, lost) = work_until_killed(service, round);
        acknowledged.extend(more);
        unknown.extend(lost);
    }
    assert!(acknowledged.len() >= 600, "{}", acknowledged.len());
    assert_eq!(unknown.len(), 16);

    let service = Service::start(folder.path());
    // Whoever had no answer asks again, and it is done once.
    for path in &unknown {
        let answer = service.try_write(path).unwrap();
        assert!([200, 201].contains(&answer.status), "{path}: {answer:?}");
        acknowledged.push((path.clone(), answer));
    }
    for (path, answer) in acknowledged.iter().take(20) {
        let again = service.try_write(path).unwrap();
        assert_eq!(again, Answer { replayed: true, ..answer.clone() }, "{path}");
    }
    let board = service.feed(None).next().unwrap();
    assert_eq!(board.event, "board");
    let shipped = acknowledged.iter().filter(|(path, _)| path.ends_with("/ship")).count();
    assert_eq!(board.data["shipped"], json!(shipped));
    assert_eq!(board.data["placed"], json!(acknowledged.len() - shipped));

    let mut told = HashMap::new();
    let mut before = 0;
    for message in service.feed(Some("0")).take(acknowledged.len()) {
        let position: u64 = message.id.parse().unwrap();
        assert!(position > before, "in the order of the log");
        before = position;
        assert!(told.insert(message.what(), message.id).is_none(), "told twice");
    }
    for (path, answer) in &acknowledged {
        let mut parts = path.split('/').skip(2);
        let id = parts.next().unwrap().to_owned();
        let what = if parts.next().is_some() { "shipped" } else { "placed" };
        let position = told.remove(&(id, what.to_owned()));
        assert_eq!(position.as_deref(), answer.body["position"].as_str(), "{path}");
    }
    assert!(told.is_empty(), "{told:?}");
}

#[test]
fn events_go_on_behind_the_last_that_was_seen() {
    let folder = directory();
    let service = Service::start(folder.path());
    assert_eq!(service.place("1", "").status, 201);
    let mut feed = service.feed(None);
    let board = feed.next().unwrap();
    assert_eq!((board.event.as_str(), &board.data["placed"]), ("board", &json!(1)));
    assert_eq!(board.data["orders"][0]["order"], json!("1"));
    // What happens while it looks.
    assert_eq!(service.place("2", "").status, 201);
    let seen = feed.next().unwrap();
    assert_eq!(seen.what(), ("2".into(), "placed".into()));

    // What happens while it is away, and the service is killed and started again.
    assert_eq!(service.ship("1", "").status, 200);
    service.kill();
    let service = Service::start(folder.path());
    assert_eq!(service.ship("2", "").status, 200);
    let mut feed = service.feed(Some(&seen.id));
    assert_eq!(feed.next().unwrap().what(), ("1".into(), "shipped".into()));
    assert_eq!(feed.next().unwrap().what(), ("2".into(), "shipped".into()));
    assert_eq!(service.place("3", "").status, 201);
    assert_eq!(feed.next().unwrap().what(), ("3".into(), "placed".into()));

    // An id from elsewhere begins with the board.
    for strange in ["18446744073709551615", "x", "-1"] {
        assert_eq!(service.feed(Some(strange)).next().unwrap().event, "board", "{strange}");
    }
}

#[test]
fn the_board_shows_the_newest_fifty() {
    let folder = directory();
    let service = Service::start(folder.path());
    for order in 0..53 {
        assert_eq!(service.place(&order.to_string(), "").status, 201);
    }
    assert_eq!(service.ship("0", "").status, 200);
    assert_eq!(service.ship("52", "").status, 200);
    let service = {
        service.kill();
        Service::start(folder.path())
    };
    let board = service.feed(None).next().unwrap().data;
    assert_eq!((&board["placed"], &board["shipped"]), (&json!(53), &json!(2)));
    let orders = board["orders"].as_array().unwrap();
    assert_eq!((orders.len(), &orders[49]["order"]), (50, &json!("3")));
    assert_eq!((&orders[0]["order"], &orders[0]["status"]), (&json!("52"), &json!("shipped")));
}

#[test]
fn it_ends_cleanly_when_asked_to_though_somebody_looks_on() {
    let folder = directory();
    let service = Service::start(folder.path());
    assert_eq!(service.place("1", "").status, 201);
    let mut feed = service.feed(None);
    assert_eq!(feed.next().unwrap().event, "board");
    let status = service.terminate();
    assert!(status.success(), "{status}");
    assert!(feed.next().is_none(), "the connection ended");
    let verified = annals::verify(folder.path(), |_, _| {}).unwrap();
    assert!(verified.problems.is_empty(), "{verified:?}");
}

#[test]
fn without_arguments_it_shows_itself() {
    let shown = in_time("the demonstration", || Command::new(example()).output().unwrap());
    let text = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.status.success(), "{text}");
    for part in
        ["201 Created", "the answer of before", "409 Conflict", "event: board", "400 Bad Request"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    let wrong = Command::new(example()).arg("--colour").stderr(Stdio::null()).status().unwrap();
    assert!(!wrong.success());
}
