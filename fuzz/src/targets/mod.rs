//! The targets.

use crate::harness::Target;

pub mod canary;
pub mod directory;
pub mod flush;
pub mod identity;
pub mod import;
pub mod operations;
pub mod salvage;
pub mod segment;
pub mod verify;

/// All of them. The canary, which has to fail, is the last.
pub const ALL: [&Target; 9] = [
    &flush::TARGET,
    &segment::TARGET,
    &identity::TARGET,
    &directory::TARGET,
    &operations::TARGET,
    &import::TARGET,
    &verify::TARGET,
    &salvage::TARGET,
    &canary::TARGET,
];
