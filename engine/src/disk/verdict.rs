//! What a write and its sync have come to, whichever queue made them.

use std::io;

use crate::sync::broken;

/// How often one write is made in a row without progress before it has failed.
pub(super) const STALLS_MAX: u8 = 16;

/// What the system said.
#[derive(Debug)]
pub(super) struct Outcome {
    /// How many bytes were to be written.
    pub(super) wanted: usize,
    /// What the write can go on from is a multiple of this.
    pub(super) block: usize,
    /// How many were.
    pub(super) write: io::Result<usize>,
    /// What the sync behind it said, if there is one.
    pub(super) sync: io::Result<()>,
    /// Writes in a row that returned nothing, before this one.
    pub(super) stalls: u8,
}

/// What it means.
#[derive(Debug)]
pub(super) enum Verdict {
    Durable,
    /// So many bytes were written, in whole blocks; the rest has to be.
    Rest(usize),
    Failed(io::Error),
}

pub(super) fn verdict(outcome: Outcome) -> Verdict {
    let Outcome { wanted, block, write, sync, stalls } = outcome;
    match write {
        Err(error)
            if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock)
                && stalls < STALLS_MAX =>
        {
            Verdict::Rest(0)
        }
        Err(error) => Verdict::Failed(error),
        Ok(0) => Verdict::Failed(io::ErrorKind::WriteZero.into()),
        Ok(written) if written < wanted && !broken!(AcceptsShortWrite) => {
            let whole = written - written % block;
            if whole == 0 && stalls >= STALLS_MAX {
                Verdict::Failed(io::ErrorKind::WriteZero.into())
            } else {
                Verdict::Rest(whole)
            }
        }
        Ok(written) if written > wanted => Verdict::Failed(io::ErrorKind::InvalidData.into()),
        // A sync is never tried again, whatever it says.
        Ok(_) => match sync {
            Err(error) if !broken!(IgnoresSyncResult) => Verdict::Failed(error),
            _ => Verdict::Durable,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(wanted: usize, write: io::Result<usize>, sync: io::Result<()>, stalls: u8) -> Verdict {
        verdict(Outcome { wanted, block: 4096, write, sync, stalls })
    }

    #[track_caller]
    fn rest(verdict: Verdict) -> usize {
        match verdict {
            Verdict::Rest(written) => written,
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn failed(verdict: Verdict) -> io::ErrorKind {
        match verdict {
            Verdict::Failed(error) => error.kind(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_result_has_its_verdict() {
        use io::ErrorKind::{Interrupted, InvalidData, Other, StorageFull, WouldBlock, WriteZero};
        let cancelled = || Err(io::Error::from(Other));
        assert!(matches!(of(16384, Ok(16384), Ok(()), 0), Verdict::Durable));
        assert!(matches!(of(8192, Ok(8192), Ok(()), 0), Verdict::Durable));
        // Short: the link is broken and the sync cancelled, and the rest is synced with all before it.
        assert_eq!(rest(of(16384, Ok(8192), cancelled(), 0)), 8192);
        assert_eq!(rest(of(16384, Ok(9000), cancelled(), 0)), 8192);
        assert_eq!(rest(of(16384, Ok(100), cancelled(), 0)), 0);
        assert_eq!(failed(of(16384, Ok(100), cancelled(), STALLS_MAX)), WriteZero);
        assert_eq!(failed(of(16384, Ok(0), cancelled(), 0)), WriteZero);
        assert_eq!(failed(of(8192, Ok(16384), Ok(()), 0)), InvalidData);
        assert_eq!(rest(of(16384, Err(Interrupted.into()), cancelled(), 0)), 0);
        assert_eq!(failed(of(16384, Err(WouldBlock.into()), Ok(()), STALLS_MAX)), WouldBlock);
        assert_eq!(failed(of(16384, Err(StorageFull.into()), cancelled(), 0)), StorageFull);
        // A sync that failed, for whatever reason.
        assert_eq!(failed(of(16384, Ok(16384), Err(Interrupted.into()), 0)), Interrupted);
        assert_eq!(failed(of(16384, Ok(16384), cancelled(), 0)), Other);
    }

    #[test]
    #[cfg(feature = "mutants")]
    fn mutants_take_what_is_not_whole_for_durable() {
        use crate::sync::fault::{Fault, set};
        set(Some(Fault::AcceptsShortWrite));
        assert!(matches!(of(16384, Ok(8192), Ok(()), 0), Verdict::Durable));
        set(Some(Fault::IgnoresSyncResult));
        let failed = || Err(io::ErrorKind::Other.into());
        assert!(matches!(of(16384, Ok(16384), failed(), 0), Verdict::Durable));
        set(None);
    }
}
