//! The log of a shard, as memory and files: from positions to bytes.

pub mod bytes;
pub mod catalogue;
pub mod cursor;
#[cfg(test)]
pub(crate) mod fixture;
pub mod following;
#[cfg(test)]
mod following_tests;
pub mod prepare;
pub mod segment;
pub mod tail;
#[cfg(test)]
mod tests;
pub mod walk;
