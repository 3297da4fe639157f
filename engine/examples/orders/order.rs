//! An order: what can be asked of it, what happens to it, and what may happen next.

use annals::{Event, Recorded, State};
use serde::{Deserialize, Serialize};

/// The number of an order: 1 to 40 letters, digits and hyphens.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct OrderId(String);

impl OrderId {
    /// What the keys of all orders begin with.
    pub const PREFIX: &str = "order/";

    /// The key of the aggregate.
    pub fn key(&self) -> String {
        format!("{}{}", OrderId::PREFIX, self.0)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for OrderId {
    type Error = &'static str;

    fn try_from(id: String) -> Result<OrderId, Self::Error> {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        match (1..=40).contains(&id.len()) && id.bytes().all(known) {
            true => Ok(OrderId(id)),
            false => Err("the number of an order is 1 to 40 letters, digits and hyphens"),
        }
    }
}

/// What is ordered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Details {
    pub item: String,
    pub quantity: u32,
}

impl Details {
    /// What the service takes. What was stored is not checked again: it has happened.
    pub fn checked(self) -> Result<Details, &'static str> {
        let item = self.item.trim();
        match item.chars().count() {
            1..=80 if item.chars().any(char::is_control) => {
                Err("an item has no control characters")
            }
            1..=80 if !(1..=1000).contains(&self.quantity) => Err("the quantity is 1 to 1000"),
            1..=80 => Ok(Details { item: item.to_owned(), ..self }),
            _ => Err("an item has 1 to 80 characters"),
        }
    }
}

/// What happens to an order. It is stored as the type of an event and, where there is more to say, its data.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Happening {
    Placed(Details),
    Shipped,
}

impl Happening {
    fn to_event(&self) -> Event {
        match self {
            Happening::Placed(details) => {
                Event::new("OrderPlaced", serde_json::json!(details).to_string())
            }
            Happening::Shipped => Event::new("OrderShipped", ""),
        }
    }

    /// `None` for an event of a type that this version of the service does not know.
    pub fn of(event: &Recorded) -> Option<Happening> {
        match event.event_type() {
            "OrderPlaced" => serde_json::from_slice(event.data()).ok().map(Happening::Placed),
            "OrderShipped" => Some(Happening::Shipped),
            _ => None,
        }
    }
}

/// What the events of an order add up to, as far as decisions need it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    #[default]
    Unknown,
    Placed,
    Shipped,
}

impl State for Order {
    fn apply(&mut self, event: &Recorded) {
        match event.event_type() {
            "OrderPlaced" => *self = Order::Placed,
            "OrderShipped" => *self = Order::Shipped,
            _ => {}
        }
    }
}

impl Order {
    /// The decision: the event, or why not.
    pub fn decide(&self, wanted: &Happening) -> Result<Vec<Event>, &'static str> {
        match (self, wanted) {
            (Order::Unknown, Happening::Placed(_)) | (Order::Placed, Happening::Shipped) => {
                Ok(vec![wanted.to_event()])
            }
            (_, Happening::Placed(_)) => Err("the order was placed before"),
            (Order::Unknown, _) => Err("the order was never placed"),
            (Order::Shipped, _) => Err("the order was shipped before"),
        }
    }
}
