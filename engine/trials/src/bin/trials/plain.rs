//! soon
pub(crate) fn write_for_ever(_: &std::path::Path) -> Result<(), crate::report::Failure> {
    Ok(())
}
