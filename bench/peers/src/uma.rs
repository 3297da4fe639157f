//! UmaDB: an event store with dynamic consistency boundaries, as a server, reached by gRPC.
//!
//! Its crate is a library too: the server that the harness starts is this very program, told by its first argument to be UmaDB.

use std::{
    env,
    ffi::OsString,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    sync::Arc,
};

use bench::store::{Key, Result, Setup, Store};
use futures::future::{BoxFuture, FutureExt};
use rustix::process::Signal;
use tokio::runtime::Runtime;
use umadb_client::{AsyncUmaDbClient, UmaDbClient};
use umadb_dcb::{
    DcbAppendCondition, DcbError, DcbEvent, DcbEventStoreAsync, DcbQuery, DcbQueryItem,
};

use crate::{
    boundary::{Boundary, BoundarySession, Tips, Written},
    server::Server,
};

/// What UmaDB does before it acknowledges.
pub const ACKNOWLEDGES: &str = "its writer thread takes all waiting appends, checks their conditions (no event with the aggregate's tag after the position of the \
     version expected), writes the changed pages and a header page and syncs the file with fdatasync after each; over gRPC on the loopback \
     interface, four connections shared by all threads";

/// The first argument that makes this program the server.
pub const BE_UMADB: &str = "be-umadb";

/// How many connections sessions share. One each would cost the server more than it saves.
const CONNECTIONS: usize = 4;

/// The server, if the program was told to be it.
pub fn serve() -> Option<ExitCode> {
    let mut arguments: Vec<OsString> = env::args_os().collect();
    if arguments.get(1).is_none_or(|first| first != BE_UMADB) {
        return None;
    }
    arguments.remove(1);
    let served = umadb::parse_cli_options(arguments).and_then(umadb::start_server_with_cli_options);
    Some(if served.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// This program. A test, which lies one folder deeper, is another one.
fn program() -> Result<PathBuf> {
    let this = env::current_exe()?;
    let name = env!("CARGO_PKG_NAME");
    let found =
        this.ancestors().skip(1).take(2).map(|dir| dir.join(name)).find(|path| path.exists());
    Ok(found.ok_or_else(|| {
        format!(
            "the program {name} was looked for beside {} and is not there: build it",
            this.display()
        )
    })?)
}

/// A UmaDB server and the connections to it.
#[derive(Debug)]
pub struct UmaDb {
    server: Server,
    clients: Vec<Client>,
    tips: Arc<Tips>,
    next: std::sync::atomic::AtomicUsize,
}

impl Store for UmaDb {
    type Session = BoundarySession<Client>;

    fn open(dir: &Path, _: &Setup) -> Result<Self> {
        // Asked for and given back: the next one to ask gets another.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let mut command = Command::new(program()?);
        command.args([BE_UMADB, "--listen", &address.to_string(), "--db-path"]);
        command.arg(dir.join("uma.db"));
        let mut server = Server::start(command, "umadb", dir, Signal::TERM)?;
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let runtime = Arc::new(runtime);
        let url = format!("http://{address}");
        let clients = (0..CONNECTIONS)
            .map(|_| {
                server.wait_for(|| {
                    let client = runtime.block_on(UmaDbClient::new(url.clone()).connect_async())?;
                    runtime.block_on(client.head())?;
                    Ok(Client { client: Arc::new(client), runtime: Arc::clone(&runtime) })
                })
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(UmaDb { server, clients, tips: Arc::default(), next: Default::default() })
    }

    fn session(&self) -> Result<BoundarySession<Client>> {
        let next = self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Ok(BoundarySession::new(
            self.clients[next % self.clients.len()].clone(),
            Arc::clone(&self.tips),
        ))
    }

    fn processes(&self) -> Vec<u32> {
        self.server.processes()
    }

    fn close(self) -> Result<()> {
        drop(self.clients);
        self.server.stop()
    }
}

/// A connection.
#[derive(Clone)]
pub struct Client {
    client: Arc<AsyncUmaDbClient>,
    runtime: Arc<Runtime>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

/// A key's tag: it is text already.
fn tag(key: &Key) -> Result<String> {
    Ok(std::str::from_utf8(key)?.to_owned())
}

impl Boundary for Client {
    async fn head(&self) -> Result<u64> {
        Ok(self.client.head().await?.unwrap_or(0))
    }

    async fn last(&self, key: Key, limit: usize) -> Result<Vec<(u64, Vec<u8>)>> {
        let query = DcbQuery::new().item(DcbQueryItem::new().tags([tag(&key)?]));
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        let (events, _) = self.client.read_with_head(Some(query), None, true, Some(limit)).await?;
        Ok(events.into_iter().map(|event| (event.position, event.event.data)).collect())
    }

    fn all(&self, each: &mut dyn FnMut(&[u8])) -> Result<()> {
        self.runtime.block_on(async {
            let mut reads = self.client.read(None, None, false, None).await?;
            loop {
                let batch = reads.next_batch().await?;
                if batch.is_empty() {
                    return Ok(());
                }
                batch.iter().for_each(|event| each(&event.event.data));
            }
        })
    }

    async fn append(&self, events: Vec<Written>, after: u64) -> Result<Option<u64>> {
        let mut query = DcbQuery::new();
        let mut encoded = Vec::with_capacity(events.len());
        for event in events {
            let tag = tag(&event.key)?;
            query = query.item(DcbQueryItem::new().tags([tag.clone()]));
            encoded.push(DcbEvent::new().event_type("event").tags([tag]).data(event.data));
        }
        let condition = DcbAppendCondition::new(query).after((after > 0).then_some(after));
        match self.client.append(encoded, Some(condition), None).await {
            Ok(last) => Ok(Some(last)),
            Err(DcbError::IntegrityError(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn start<T: Send + 'static>(
        &self,
        future: impl Future<Output = Result<T>> + Send + 'static,
    ) -> BoxFuture<'static, Result<T>> {
        let task = self.runtime.spawn(future);
        async move { task.await? }.boxed()
    }

    fn wait<T>(&self, future: impl Future<Output = Result<T>>) -> Result<T> {
        self.runtime.block_on(future)
    }
}
