//! Why a command did not do all that it was asked to, and the exit code that says so.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | a conflict, or damage found |
//! | 2 | wrong usage or bad input, also a store to read that does not exist |
//! | 3 | the store or the disk failed |

use std::fmt;
use std::io;
use std::process::ExitCode;

use annals::ErrorKind;

/// Why a command failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The command or its input can't be right: exit code 2.
    Input(String),
    /// A condition did not hold: exit code 1.
    Conflict(String),
    /// Bytes are not what was written: exit code 1.
    Damage(String),
    /// The store failed or refused; its kind of error gives the exit code.
    Store(annals::Error),
    /// The operating system failed: exit code 3.
    System(String),
    /// Nobody reads the output any more. That is no fault: exit code 0.
    Unread,
}

impl Failure {
    /// The exit code.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Failure::Unread => 0,
            Failure::Conflict(_) | Failure::Damage(_) => 1,
            Failure::Input(_) => 2,
            Failure::System(_) => 3,
            Failure::Store(error) => match error.kind() {
                ErrorKind::Conflict
                | ErrorKind::NotFound
                | ErrorKind::Duplicate
                | ErrorKind::Corrupt => 1,
                ErrorKind::Invalid | ErrorKind::TooLarge | ErrorKind::CrossShard => 2,
                _ => 3,
            },
        }
    }

    /// The exit code, as `main` returns it.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code())
    }

    /// A failure of the operating system, with what was being done.
    pub(crate) fn system(doing: impl fmt::Display, error: &io::Error) -> Failure {
        Failure::System(format!("{doing}: {error}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Input(what)
            | Failure::Conflict(what)
            | Failure::Damage(what)
            | Failure::System(what) => f.write_str(what),
            Failure::Store(error) => write!(f, "{error} (error {})", error.code()),
            Failure::Unread => f.write_str("nobody reads the output"),
        }
    }
}

impl From<annals::Error> for Failure {
    fn from(error: annals::Error) -> Failure {
        Failure::Store(error)
    }
}

/// Errors of writing to standard output, the one place where the commands write.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::Unread,
            _ => Failure::system("writing to standard output", &error),
        }
    }
}
