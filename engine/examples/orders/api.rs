//! What can be asked over HTTP.
//!
//! A write carries an `Idempotency-Key` if its sender wants to be able to send it again: a UUID, or a number below 2⁶⁴. The
//! key is the store's *client*, one that makes a single write, of sequence 0. The store keeps it with the order, in the
//! write itself, so a retry finds the original after a crash of the service as well. A refusal writes nothing, and is
//! decided anew each time.

use std::future::ready;
use std::time::Duration;

use annals::{Committed, Position, State as _, Store};
use axum::extract::{DefaultBodyLimit, FromRequest, FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{BoxError, Json, Router};
use futures::{Stream, StreamExt, stream};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::block_in_place;
use uuid::Uuid;

use crate::board::{self, Board, Entry};
use crate::failure::Failure;
use crate::order::{Details, Happening, Order, OrderId};

/// What every request has at hand.
#[derive(Clone, Debug)]
pub struct Service {
    pub store: Store,
    pub board: watch::Receiver<Board>,
}

pub fn router(service: Service) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/events", get(events))
        .route("/health", get(health))
        .route("/orders/{id}", get(history).post(place))
        .route("/orders/{id}/ship", post(ship))
        .layer(DefaultBodyLimit::max(4096))
        .with_state(service)
}

/// As `axum::extract::Path`, with a [`Failure`] where it does not fit.
#[derive(FromRequestParts)]
#[from_request(via(axum::extract::Path), rejection(Failure))]
struct Path<T>(T);

/// As `axum::Json`, with a [`Failure`] where it does not fit.
#[derive(FromRequest)]
#[from_request(via(Json), rejection(Failure))]
struct Body<T>(T);

/// The client that the request's `Idempotency-Key` stands for. A UUID that has a version is larger than any such number, so
/// no two keys share a client.
struct Retry(Option<u128>);

impl<S: Sync> FromRequestParts<S> for Retry {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Retry, Failure> {
        let Some(key) = parts.headers.get("idempotency-key") else { return Ok(Retry(None)) };
        // With or without the quotes that the draft standard has.
        let key = key.to_str().unwrap_or_default().trim_matches('"');
        let client = match (key.parse::<u64>(), Uuid::try_parse(key)) {
            (Ok(number), _) => number.into(),
            (_, Ok(uuid)) if uuid.get_version_num() > 0 => uuid.as_u128(),
            _ => {
                return Err(Failure::invalid(
                    "an idempotency key is a UUID or a number below 2^64",
                ));
            }
        };
        Ok(Retry(Some(client)))
    }
}

async fn place(
    State(service): State<Service>,
    Path(id): Path<OrderId>,
    retry: Retry,
    Body(details): Body<Details>,
) -> Result<Response, Failure> {
    let details = details.checked().map_err(Failure::invalid)?;
    let committed = decide(&service.store, &id, retry, Happening::Placed(details)).await?;
    let location = [(header::LOCATION, format!("/orders/{}", id.as_str()))];
    Ok((StatusCode::CREATED, location, answer(&id, &committed)).into_response())
}

async fn ship(
    State(service): State<Service>,
    Path(id): Path<OrderId>,
    retry: Retry,
) -> Result<Response, Failure> {
    let committed = decide(&service.store, &id, retry, Happening::Shipped).await?;
    Ok(answer(&id, &committed).into_response())
}

/// Decides, and waits until what was decided is durable.
async fn decide(
    store: &Store,
    id: &OrderId,
    Retry(client): Retry,
    wanted: Happening,
) -> Result<Committed, Failure> {
    // It decides in memory, but may have to read the order from the disk, or wait while too much is on the way there.
    let execution = block_in_place(|| {
        let mut executor = store.executor::<Order>();
        if let Some(client) = client {
            executor = executor.client(client, 0);
        }
        executor.execute(id.key(), |order| order.decide(&wanted))
    });
    let refused = |reason| Failure::new(StatusCode::CONFLICT, reason);
    let committed = execution.await?.map_err(refused)?;
    let committed = committed.ok_or_else(|| refused("there is nothing to do"))?;
    if committed.is_replay() {
        // The same key with another request is a mistake of its sender, and no retry.
        let original = block_in_place(|| store.read(id.key()).from(committed.version()).next());
        if original.transpose()?.and_then(|event| Happening::of(&event)) != Some(wanted) {
            let reason = "the idempotency key was used for another request on this order";
            return Err(Failure::new(StatusCode::UNPROCESSABLE_ENTITY, reason));
        }
    }
    Ok(committed)
}

fn answer(id: &OrderId, committed: &Committed) -> impl IntoResponse {
    let replayed = committed.is_replay().then_some([("idempotent-replayed", "true")]);
    let position = committed.position().get().to_string();
    let body = json!({ "order": id, "version": committed.version(), "position": position });
    (replayed, Json(body))
}

async fn history(
    State(service): State<Service>,
    Path(id): Path<OrderId>,
) -> Result<Json<Value>, Failure> {
    let (mut order, mut entries) = (Order::default(), Vec::new());
    let version = block_in_place(|| {
        let read = service.store.read(id.key());
        let version = read.version();
        for event in read {
            let event = event?;
            order.apply(&event);
            entries.extend(Entry::of(&event));
        }
        Ok::<_, annals::Error>(version)
    })?;
    if version == 0 {
        return Err(Failure::new(StatusCode::NOT_FOUND, "there is no such order"));
    }
    Ok(Json(json!({ "order": id, "status": order, "version": version, "history": entries })))
}

/// The board, and then what happens to orders, each with its position as the id of the event. Whoever comes back with the id
/// of the last event that it saw is told what happened since, whether the service was restarted or not.
async fn events(
    State(service): State<Service>,
    headers: HeaderMap,
) -> Sse<impl Stream<Item = Result<sse::Event, BoxError>>> {
    let seen = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
    let (first, position) = {
        let board = service.board.borrow();
        match seen.map(Position::from_raw) {
            Some(seen) if seen <= board.position => (None, seen),
            _ => (Some(message("board", board.position.get(), &*board)), board.position),
        }
    };
    // A subscription of its own: one that is slow, or asleep, keeps nobody waiting and no memory. It is an iterator too,
    // so the method is the stream's by its full name.
    let entries = StreamExt::filter_map(board::follow(&service.store).after(position), |event| {
        let id = event.as_ref().map_or(0, |event| event.position().get());
        let entry = event.map(|event| Entry::of(&event)).map_err(BoxError::from).transpose();
        ready(entry.map(|entry| message("order", id, &entry?)))
    });
    Sse::new(stream::iter(first).chain(entries)).keep_alive(KeepAlive::default())
}

fn message(name: &str, id: u64, data: &impl serde::Serialize) -> Result<sse::Event, BoxError> {
    let event = sse::Event::default().event(name).id(id.to_string());
    Ok(event.retry(Duration::from_secs(1)).json_data(data)?)
}

/// Whether orders are taken and the projection follows, and how far it is.
async fn health(State(service): State<Service>) -> Response {
    let stopped = service.store.stats().shards.into_iter().find_map(|shard| shard.stopped);
    let board = service.board.borrow();
    let failed = stopped.or_else(|| board.failed.as_ref().map(annals::Error::to_string));
    let status = match failed {
        None => StatusCode::OK,
        Some(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    let position = board.position.get().to_string();
    (status, Json(json!({ "ok": failed.is_none(), "failed": failed, "position": position })))
        .into_response()
}

async fn page() -> impl IntoResponse {
    let policy = "default-src 'none'; connect-src 'self'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'";
    ([(header::CONTENT_SECURITY_POLICY, policy)], Html(include_str!("page.html")))
}
