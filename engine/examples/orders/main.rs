//! A service with axum: orders are placed and shipped over HTTP, a projection follows, and a page shows it live.
//!
//! ```text
//! cargo run -p annals --example orders                     shows itself, and ends
//! cargo run -p annals --example orders -- --port 8080      runs: open http://127.0.0.1:8080
//! ```
//!
//! With any argument it runs until Ctrl-C or SIGTERM: `--port PORT` (0, and unless given, the system chooses one),
//! `--dir DIR` for the store (otherwise a temporary folder), `--serve` for neither. Its first line says where it listens.
//!
//! | request | answer |
//! |---|---|
//! | `POST /orders/{id}` `{"item": "tea", "quantity": 2}` | 201: placed, and durable |
//! | `POST /orders/{id}/ship` | 200: shipped, and durable |
//! | `GET /orders/{id}` | the order and its history |
//! | `GET /events` | the board, then what happens, as server-sent events |
//! | `GET /` | the page |
//! | `GET /health` | whether it works, and how far the projection is |
//!
//! 409 is a refusal: the order exists, or can't be shipped. A write with an `Idempotency-Key` can be sent again; the answer is
//! the original one, with the header `Idempotent-Replayed`.
//!
//! [`order`] decides, [`api`] answers, [`board`] projects; none of them knows more of the others than it must.
#![allow(clippy::print_stdout)]

mod api;
mod board;
mod demo;
mod failure;
mod order;

use std::env;
use std::error::Error;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use annals::Store;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

type Failure = Box<dyn Error + Send + Sync>;

/// What stopping leaves to a request that is being answered.
const GRACE: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
struct Arguments {
    dir: Option<PathBuf>,
    port: u16,
    serve: bool,
}

fn arguments(mut given: impl Iterator<Item = String>) -> Result<Arguments, Failure> {
    let mut arguments = Arguments::default();
    while let Some(name) = given.next() {
        arguments.serve = true;
        let mut value = || given.next().ok_or(format!("{name} needs a value"));
        match name.as_str() {
            "--dir" => arguments.dir = Some(value()?.into()),
            "--port" => arguments.port = value()?.parse()?,
            "--serve" => {}
            _ => return Err(format!("{name}: expected --dir, --port or --serve").into()),
        }
    }
    Ok(arguments)
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let Arguments { dir, port, serve } = arguments(env::args().skip(1))?;
    let mut temporary = None;
    let dir = match dir {
        Some(dir) => dir,
        // Not in memory, if that can be helped.
        None => {
            let folder = tempfile::tempdir_in("/var/tmp").or_else(|_| tempfile::tempdir())?;
            temporary.insert(folder).path().to_owned()
        }
    };
    let store = Store::open(dir)?;
    let board = board::keep(&store)?;

    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    let url = format!("http://{}", listener.local_addr()?);
    println!("listening on {url}");
    let (stop, stopped) = oneshot::channel::<()>();
    let router = api::router(api::Service { store: store.clone(), board });
    let server = axum::serve(listener, router).with_graceful_shutdown(async {
        let _dropped = stopped.await;
    });
    let server = tokio::spawn(server.into_future());

    let shown = match serve {
        true => asked_to_stop().await,
        false => spawn_blocking(move || demo::show(&url)).await?,
    };
    // Everything accepted becomes durable and is answered; the subscriptions end, and with them the pages' connections.
    spawn_blocking(move || store.close()).await??;
    drop(stop);
    if let Ok(ended) = timeout(GRACE, server).await {
        ended??;
    }
    shown
}

async fn asked_to_stop() -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        pressed = tokio::signal::ctrl_c() => pressed?,
        _ = terminate.recv() => {}
    }
    Ok(())
}
