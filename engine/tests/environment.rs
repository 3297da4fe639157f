//! What a machine, an operator and a careless host program do to a store: each error is produced by the real fault, and after
//! it nothing is lost or half done.
//!
//! What would harm the test process itself, a filter of system calls, a limit, a mount, a lowered right, happens in a copy of
//! this program that [plays a role](role).

#![cfg(target_os = "linux")]

mod common;

#[path = "environment/alignment.rs"]
mod alignment;
#[path = "environment/clocks.rs"]
mod clocks;
#[path = "environment/copies.rs"]
mod copies;
#[path = "environment/descriptors.rs"]
mod descriptors;
#[path = "environment/forks.rs"]
mod forks;
#[path = "environment/memory.rs"]
mod memory;
#[path = "environment/numbers.rs"]
mod numbers;
#[path = "environment/panics.rs"]
mod panics;
#[path = "environment/permissions.rs"]
mod permissions;
#[path = "environment/process.rs"]
mod process;
#[path = "environment/reentrancy.rs"]
mod reentrancy;
#[path = "environment/rings.rs"]
mod rings;
#[path = "environment/role.rs"]
mod role;
#[path = "environment/secrets.rs"]
mod secrets;
#[path = "environment/space.rs"]
mod space;
#[path = "environment/starvation.rs"]
mod starvation;
#[path = "environment/strangers.rs"]
mod strangers;
#[path = "environment/versions.rs"]
mod versions;

use common::images;
