//! Annals and the peers that cost little to build, each behind the contract of [`crate::store`].

pub mod annals;
pub mod bare;
pub mod contract;
pub mod file;
pub mod fjall;
pub mod grouped;
pub mod redb;
pub mod rows;
