//! PostgreSQL: a server, started by the harness in the round's folder, reached through a Unix socket.
//!
//! Installed with `apt-get install postgresql`. The server refuses to run as root: started by root it runs as the user `postgres`, through `setpriv`.

use std::{
    fs,
    os::unix::fs::{MetadataExt, chown},
    path::{Path, PathBuf},
    process::Command,
};

use bench::{
    folder::Ending,
    store::{Append, Done, Key, Outcome, Result, Session, Setup, Store},
};
use postgres::{Client, Config, NoTls, Row, Statement, fallible_iterator::FallibleIterator};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::server::Server;

/// What PostgreSQL does before it acknowledges.
pub const ACKNOWLEDGES: &str = "fsync=on, synchronous_commit=on, full_page_writes=on; UPDATE … WHERE version = $expected and the INSERT in one prepared statement, \
     two aggregates in one function call; the write-ahead log is written and synced with fdatasync, once for the sessions that came \
     together; over a Unix socket, a connection for each thread";

/// What the server is told beside its defaults.
const SETTINGS: &[&str] = &[
    "fsync=on",
    "synchronous_commit=on",
    "full_page_writes=on",
    "wal_sync_method=fdatasync",
    "wal_level=minimal",
    "max_wal_senders=0",
    "max_wal_size=8GB",
    "min_wal_size=1GB",
    "checkpoint_timeout=30min",
    "shared_buffers=512MB",
    "max_connections=400",
    "listen_addresses=",
];

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS aggregates (key bytea PRIMARY KEY, version bigint NOT NULL) WITH (fillfactor = 70);
    CREATE TABLE IF NOT EXISTS events (key bytea, version bigint, payload bytea NOT NULL, PRIMARY KEY (key, version));
    CREATE OR REPLACE FUNCTION append_two(
        key1 bytea, expected1 bigint, payload1 bytea, key2 bytea, expected2 bigint, payload2 bytea,
        OUT committed boolean, OUT made_or_actual bigint
    ) LANGUAGE plpgsql AS $$
    DECLARE
        locked bigint;
        version1 bigint;
        version2 bigint;
    BEGIN
        LOOP
            PERFORM 1 FROM aggregates WHERE key IN (key1, key2) ORDER BY key FOR UPDATE;
            GET DIAGNOSTICS locked = ROW_COUNT;
            EXIT WHEN locked = 2;
            INSERT INTO aggregates SELECT key, 0 FROM unnest(ARRAY[key1, key2]) AS key ORDER BY key ON CONFLICT DO NOTHING;
        END LOOP;
        SELECT version INTO version1 FROM aggregates WHERE key = key1;
        SELECT version INTO version2 FROM aggregates WHERE key = key2;
        committed := false;
        IF version1 <> expected1 THEN made_or_actual := version1; RETURN; END IF;
        IF version2 <> expected2 THEN made_or_actual := version2; RETURN; END IF;
        UPDATE aggregates SET version = version + 1 WHERE key IN (key1, key2);
        INSERT INTO events VALUES (key1, version1 + 1, payload1), (key2, version2 + 1, payload2);
        committed := true;
        made_or_actual := version1 + 1;
    END $$;";
const MOVE: &str = "WITH moved AS (UPDATE aggregates SET version = version + 1 WHERE key = $1 AND version = $2 RETURNING version)
    INSERT INTO events SELECT $1, version, $3 FROM moved RETURNING version";
const MAKE: &str = "WITH made AS (INSERT INTO aggregates VALUES ($1, 1)
        ON CONFLICT (key) DO UPDATE SET version = 1 WHERE aggregates.version = 0 RETURNING version)
    INSERT INTO events SELECT $1, version, $2 FROM made RETURNING version";
const MOVE_ANY: &str = "WITH moved AS (INSERT INTO aggregates VALUES ($1, 1)
        ON CONFLICT (key) DO UPDATE SET version = aggregates.version + 1 RETURNING version)
    INSERT INTO events SELECT $1, version, $2 FROM moved RETURNING version";
const TWO: &str = "SELECT committed, made_or_actual FROM append_two($1, $2, $3, $4, $5, $6)";
const VERSION: &str = "SELECT version FROM aggregates WHERE key = $1";
const LAST: &str = "SELECT payload FROM (SELECT version, payload FROM events WHERE key = $1 ORDER BY version DESC LIMIT $2) AS last ORDER BY version";
const ALL: &str = "SELECT payload FROM events ORDER BY key, version";
const LOAD: &str = "WITH given AS (SELECT key, payload, row_number() OVER (PARTITION BY key ORDER BY place) AS number
        FROM unnest($1::bytea[], $2::bytea[]) WITH ORDINALITY AS given (key, payload, place)),
    moved AS (INSERT INTO aggregates SELECT key, max(number) FROM given GROUP BY key
        ON CONFLICT (key) DO UPDATE SET version = aggregates.version + excluded.version RETURNING key, version),
    sizes AS (SELECT key, max(number) AS size FROM given GROUP BY key)
    INSERT INTO events SELECT key, version - size + number, payload
        FROM given JOIN sizes USING (key) JOIN moved USING (key)";

/// A PostgreSQL server.
#[derive(Debug)]
pub struct PostgreSql {
    server: Server,
    /// The folder of the socket, whose path must be short.
    socket: TempDir,
    /// Removes that folder if the harness is interrupted.
    _ending: Ending,
}

/// The variable that names the folder with the server's programs where they are not in Debian's place.
const PROGRAMS: &str = "POSTGRESQL_BIN";

/// The folder with the programs of the newest server that is installed, or of the one that [`PROGRAMS`] names.
pub fn programs() -> Result<PathBuf> {
    let is_there = |bin: &Path| ["postgres", "initdb"].iter().all(|name| bin.join(name).is_file());
    if let Some(named) = std::env::var_os(PROGRAMS).map(PathBuf::from) {
        return if is_there(&named) {
            Ok(named)
        } else {
            Err(format!(
                "{PROGRAMS} names {}, where postgres and initdb were expected and are not both: name their folder",
                named.display()
            )
            .into())
        };
    }
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = versions
        .filter_map(|entry| {
            Some((entry.file_name().to_str()?.parse::<u32>().ok()?, entry.path().join("bin")))
        })
        .filter(|(_, bin)| is_there(bin))
        .max();
    newest.map(|(_, bin)| bin).ok_or_else(|| {
        format!(
            "PostgreSQL was looked for in /usr/lib/postgresql and is not there: install it, for example with \
             `apt-get install postgresql`, or have {PROGRAMS} name the folder of its programs"
        )
        .into()
    })
}

/// The version of the server that is installed; empty if none is.
pub fn version() -> String {
    let said = programs()
        .ok()
        .and_then(|bin| Command::new(bin.join("postgres")).arg("--version").output().ok());
    let said = said.and_then(|output| String::from_utf8(output.stdout).ok()).unwrap_or_default();
    said.split_whitespace().nth(2).unwrap_or_default().to_owned()
}

/// Who runs the server: this process's own user, or, if that is root, `postgres`.
struct User {
    other: Option<(u32, u32)>,
}

impl User {
    fn choose() -> Result<User> {
        // The owner of what this process makes is who it is.
        if fs::metadata("/proc/self")?.uid() != 0 {
            return Ok(User { other: None });
        }
        let users = fs::read_to_string("/etc/passwd")?;
        let ids = users.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            (fields.first() == Some(&"postgres"))
                .then(|| Some((fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?)))?
        });
        let missing = "PostgreSQL does not run as root and there is no user `postgres`: make one, or run this as an ordinary user";
        Ok(User { other: Some(ids.ok_or(missing)?) })
    }

    /// Makes a folder that the server may own.
    fn give(&self, dir: &Path) -> Result<()> {
        if let Some((user, group)) = self.other {
            chown(dir, Some(user), Some(group))?;
        }
        Ok(())
    }

    /// A command that the user runs. Where it is another user it may pass through this one's folders.
    fn command(&self, program: &Path) -> Command {
        let Some((user, group)) = self.other else { return Command::new(program) };
        let mut command = Command::new("setpriv");
        command.args([format!("--reuid={user}"), format!("--regid={group}")]);
        // Becoming another user clears the signal at the parent's end; SIGINT has the server end quickly and cleanly.
        command.args(["--clear-groups", "--pdeathsig=INT"]);
        command.args(["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]);
        command.arg("--").arg(program);
        command
    }
}

impl Store for PostgreSql {
    type Session = PostgreSqlSession;

    fn open(dir: &Path, _: &Setup) -> Result<Self> {
        let (bin, user) = (programs()?, User::choose()?);
        let data = dir.join("postgresql");
        if !data.join("PG_VERSION").exists() {
            fs::create_dir_all(&data)?;
            user.give(&data)?;
            let made = user
                .command(&bin.join("initdb"))
                .args(["--username=bench", "--auth=trust", "--no-locale", "--encoding=UTF8"])
                .arg("--pgdata")
                .arg(&data)
                .current_dir("/")
                .output()?;
            if !made.status.success() {
                return Err(
                    format!("initdb failed: {}", String::from_utf8_lossy(&made.stderr)).into()
                );
            }
        }
        let socket = TempDir::new()?;
        let socket_path = socket.path().to_owned();
        let ending = Ending::new(move || drop(fs::remove_dir_all(&socket_path)));
        user.give(socket.path())?;
        let mut command = user.command(&bin.join("postgres"));
        command.arg("-D").arg(&data).arg("-k").arg(socket.path()).current_dir("/");
        SETTINGS.iter().for_each(|setting| {
            command.args(["-c", setting]);
        });
        let mut server = Server::start(command, "postgresql", dir, Signal::INT)?;
        let mut client = server.wait_for(|| connect(socket.path()))?;
        client.batch_execute(TABLES)?;
        Ok(PostgreSql { server, socket, _ending: ending })
    }

    fn session(&self) -> Result<PostgreSqlSession> {
        let mut client = connect(self.socket.path())?;
        let mut prepare = |statement| client.prepare(statement);
        let (move_, make, move_any, two) =
            (prepare(MOVE)?, prepare(MAKE)?, prepare(MOVE_ANY)?, prepare(TWO)?);
        let (version, last) = (prepare(VERSION)?, prepare(LAST)?);
        Ok(PostgreSqlSession { client, move_, make, move_any, two, version, last })
    }

    fn processes(&self) -> Vec<u32> {
        self.server.processes()
    }

    fn close(self) -> Result<()> {
        self.server.stop()
    }
}

fn connect(socket: &Path) -> Result<Client> {
    Ok(Config::new().host_path(socket).user("bench").dbname("postgres").connect(NoTls)?)
}

/// One thread's connection, with its prepared statements.
pub struct PostgreSqlSession {
    client: Client,
    move_: Statement,
    make: Statement,
    move_any: Statement,
    two: Statement,
    version: Statement,
    last: Statement,
}

impl std::fmt::Debug for PostgreSqlSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgreSqlSession").finish_non_exhaustive()
    }
}

impl PostgreSqlSession {
    fn append_one(&mut self, append: &Append<'_>) -> Result<Outcome> {
        let (key, payload) = (&append.key[..], append.payload);
        let rows = match append.expected {
            Some(0) => self.client.query(&self.make, &[&key, &payload])?,
            Some(expected) => {
                self.client.query(&self.move_, &[&key, &(expected as i64), &payload])?
            }
            None => self.client.query(&self.move_any, &[&key, &payload])?,
        };
        match rows.first() {
            Some(row) => Ok(Outcome::Committed(number(row, 0))),
            None => Ok(Outcome::Conflict(self.version(append.key)?)),
        }
    }

    fn append_two(&mut self, one: &Append<'_>, two: &Append<'_>) -> Result<Outcome> {
        let expected = [one, two].map(|append| append.expected.map(|expected| expected as i64));
        let row = self.client.query_one(
            &self.two,
            &[&&one.key[..], &expected[0], &one.payload, &&two.key[..], &expected[1], &two.payload],
        )?;
        let found = number(&row, 1);
        Ok(if row.get(0) { Outcome::Committed(found) } else { Outcome::Conflict(found) })
    }
}

fn number(row: &Row, column: usize) -> u64 {
    row.get::<_, i64>(column) as u64
}

impl Session for PostgreSqlSession {
    type Ticket = Done;
    type Handle = Key;

    fn submit(&mut self, appends: &[Append<'_>]) -> Result<Done> {
        match appends {
            [one] => self.append_one(one).map(Done),
            [one, two] => self.append_two(one, two).map(Done),
            _ => Err(format!(
                "a write of one or two events was expected and it has {}",
                appends.len()
            )
            .into()),
        }
    }

    fn handle(&mut self, key: Key) -> Result<Key> {
        Ok(key)
    }

    fn submit_to(&mut self, handle: &Key, expected: Option<u64>, payload: &[u8]) -> Result<Done> {
        self.submit(&[Append { key: *handle, expected, payload }])
    }

    fn load(&mut self, events: &mut dyn Iterator<Item = (Key, &[u8])>) -> Result<u64> {
        let mut count = 0;
        loop {
            let (mut keys, mut payloads) = (Vec::new(), Vec::new());
            for (key, payload) in events.take(10_000) {
                keys.push(key.to_vec());
                payloads.push(payload.to_vec());
            }
            if keys.is_empty() {
                return Ok(count);
            }
            count += self.client.execute(LOAD, &[&keys, &payloads])?;
        }
    }

    fn version(&mut self, key: Key) -> Result<u64> {
        let row = self.client.query_opt(&self.version, &[&&key[..]])?;
        Ok(row.map_or(0, |row| number(&row, 0)))
    }

    fn read_last(&mut self, key: Key, events: usize, each: &mut dyn FnMut(&[u8])) -> Result<u64> {
        let rows = self.client.query(&self.last, &[&&key[..], &(events as i64)])?;
        rows.iter().for_each(|row| each(row.get(0)));
        Ok(rows.len() as u64)
    }

    fn read_all(&mut self, each: &mut dyn FnMut(&[u8])) -> Result<u64> {
        let mut found = 0;
        let none: [&str; 0] = [];
        let mut rows = self.client.query_raw(ALL, none)?;
        while let Some(row) = rows.next()? {
            each(row.get(0));
            found += 1;
        }
        Ok(found)
    }
}
