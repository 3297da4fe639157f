//! The peers of Annals that take long to build, or are servers, each behind the contract of [`bench::store`].
//!
//! What they need beyond Rust: a C and a C++ compiler, `libclang` and `protoc` to build, and PostgreSQL to run against it. On Debian:
//! `apt-get install build-essential libclang-dev protobuf-compiler postgresql`.

pub mod boundary;
pub mod lmdb;
pub mod postgresql;
pub mod rocks;
pub mod server;
pub mod sqlite;
pub mod tephra;
pub mod uma;
pub mod wal;

use bench::{
    results::Kind,
    roster::{self, Contender, Roster},
    stores::grouped::Grouped,
};

use crate::{
    lmdb::Lmdb, postgresql::PostgreSql, rocks::Rocks, sqlite::Sqlite, tephra::Tephra, uma::UmaDb,
    wal::Wal,
};

/// Who can't take part, and why.
const ABSENT: &str = "KurrentDB and Celeriant take no part: neither can be installed from a package registry, and the harness starts no server that it \
     did not get from one.";

/// Everybody. `lock` is the text of the `Cargo.lock` that the program is built with.
pub fn roster(lock: &str) -> Roster {
    let mut roster = roster::light(lock);
    let [sqlite, lmdb, rocks, tephra, okaywal, umadb] =
        ["rusqlite", "heed", "rocksdb", "tephra", "okaywal", "umadb"]
            .map(|package| roster::locked_version(lock, package));
    let sqlite = format!("{} (rusqlite {sqlite})", rusqlite::version());
    let lmdb = format!("heed {lmdb}");
    let rocks = format!("rocksdb {rocks}");
    roster.contenders.extend([
        Contender::new::<Sqlite>("sqlite", &sqlite, Kind::Embedded, sqlite::ACKNOWLEDGES),
        Contender::new::<Grouped<Sqlite>>(
            "sqlite + group",
            &sqlite,
            Kind::Grouped,
            sqlite::ACKNOWLEDGES_GROUPED,
        ),
        Contender::new::<Lmdb>("lmdb", &lmdb, Kind::Embedded, lmdb::ACKNOWLEDGES),
        Contender::new::<Grouped<Lmdb>>(
            "lmdb + group",
            &lmdb,
            Kind::Grouped,
            lmdb::ACKNOWLEDGES_GROUPED,
        ),
        Contender::new::<Rocks>("rocksdb", &rocks, Kind::Embedded, rocks::ACKNOWLEDGES),
        Contender::new::<Grouped<Rocks>>(
            "rocksdb + group",
            &rocks,
            Kind::Grouped,
            rocks::ACKNOWLEDGES_GROUPED,
        ),
        Contender::new::<Tephra>("tephra", &tephra, Kind::Embedded, tephra::ACKNOWLEDGES),
        Contender::new::<Wal>("okaywal", &okaywal, Kind::Bound, wal::ACKNOWLEDGES)
            .only(|case| matches!(case.workload, "solo" | "clients" | "pipeline")),
        Contender::new::<UmaDb>("umadb", &umadb, Kind::Server, uma::ACKNOWLEDGES),
        Contender::new::<PostgreSql>(
            "postgresql",
            &postgresql::version(),
            Kind::Server,
            postgresql::ACKNOWLEDGES,
        )
        .needs(postgresql::programs().map(drop)),
    ]);
    roster.remarks.push(ABSENT.into());
    roster
}
