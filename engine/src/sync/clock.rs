//! The time. No decision of the store rests on the time of day: it is only noted.

use std::time::{Duration, Instant, SystemTime};

#[cfg(all(feature = "internals", not(loom)))]
use super::host;

/// Now, as deadlines count.
#[inline]
pub(crate) fn now() -> Instant {
    #[cfg(all(feature = "internals", not(loom)))]
    if let Some(host) = host::current() {
        static ORIGIN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        return *ORIGIN.get_or_init(Instant::now) + host.elapsed();
    }
    Instant::now()
}

/// How long ago that was.
pub(crate) fn since(begin: Instant) -> Duration {
    now().saturating_duration_since(begin)
}

/// The time of day, in microseconds since 1970, negative before.
pub(crate) fn unix_micros() -> i64 {
    #[cfg(all(feature = "internals", not(loom)))]
    if let Some(host) = host::current() {
        return host.unix_micros();
    }
    match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
        Err(error) => -i64::try_from(error.duration().as_micros()).unwrap_or(i64::MAX),
    }
}
