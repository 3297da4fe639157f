//! soon
pub(crate) fn run() -> Result<(), crate::report::Failure> { Ok(()) }
