//! Every peer keeps the contract.

use bench::stores::{contract, grouped::Grouped};
use bench_peers::{
    lmdb::Lmdb, postgresql::PostgreSql, rocks::Rocks, sqlite::Sqlite, tephra::Tephra, uma::UmaDb,
    wal::Wal,
};

#[test]
fn sqlite() {
    contract::check::<Sqlite>();
}

#[test]
fn sqlite_behind_a_group_thread() {
    contract::check::<Grouped<Sqlite>>();
}

#[test]
fn lmdb() {
    contract::check::<Lmdb>();
}

#[test]
fn lmdb_behind_a_group_thread() {
    contract::check::<Grouped<Lmdb>>();
}

#[test]
fn rocksdb() {
    contract::check::<Rocks>();
}

#[test]
fn rocksdb_behind_a_group_thread() {
    contract::check::<Grouped<Rocks>>();
}

#[test]
fn tephra() {
    contract::check::<Tephra>();
}

#[test]
fn umadb() {
    contract::check::<UmaDb>();
}

#[test]
fn postgresql() {
    contract::check::<PostgreSql>();
}

#[test]
fn okaywal() {
    contract::check_bound::<Wal>();
}
