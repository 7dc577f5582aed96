//! Opening a connection: its places, in the clear or encrypted, and the two kinds of replication.

use super::cancel::Endpoint;
use super::connection::{DROP_PATIENCE, ReplicationClient, State};
use super::conninfo::{Address, ConnectionParameters};
use super::error::{ClientError, Doing};
use super::tls::{self, Answer, Dial, Session, TlsProblem, Way};
use super::transport::Transport;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

/// How many addresses of one host name are tried.
const MOST_ADDRESSES: usize = 16;

impl ReplicationClient {
    /// Connects and signs in.
    ///
    /// Over TCP, encrypted as `sslmode` says. Asks for `replication=database` first, which allows SQL too; where `pg_hba.conf` has no entry for that
    /// database, or the default database does not exist, for physical replication, which every command of a base
    /// backup can do with. [`Self::takes_sql`] tells which it became.
    ///
    /// # Errors
    /// See [`ClientError`]; nothing stays open.
    pub async fn connect(parameters: &ConnectionParameters) -> Result<Self, ClientError> {
        let first = match Self::connect_as(parameters, true).await {
            Err(error @ ClientError::NoHbaEntry { .. }) => error,
            Err(error @ ClientError::NoSuchDatabase { .. }) if !parameters.database_was_named => error,
            other => return other,
        };
        match (Self::connect_as(parameters, false).await, first) {
            (Err(second @ ClientError::NoHbaEntry { .. }), first) => Err(more_telling(first, second)),
            (other, _) => other,
        }
    }

    async fn connect_as(parameters: &ConnectionParameters, sql: bool) -> Result<Self, ClientError> {
        let mut unreachable = None;
        for at in &parameters.addresses {
            match Self::connect_to(at, parameters, sql).await {
                // The first of the default places is where people expect the server.
                Err(Failed { error, reached: false, .. }) => {
                    unreachable.get_or_insert(error);
                }
                outcome => return outcome.map_err(|failed| failed.error),
            }
        }
        Err(unreachable
            .unwrap_or_else(|| ClientError::Request("there is no address to connect to".to_owned())))
    }

    /// Tries in the clear and encrypted, in the order that `sslmode` says, as libpq does (fe-connect.c,
    /// `select_next_encryption_method`): the other way is tried when the server refuses the first, and when TLS was tried
    /// and failed; never after a connection that broke, nor after one that we ended because of what the server did.
    async fn connect_to(at: &Address, parameters: &ConnectionParameters, sql: bool) -> Result<Self, Failed> {
        let ways = match at {
            Address::Unix { .. } => &[Way::Plain],
            Address::Tcp { .. } => parameters.tls.mode.ways(),
        };
        let mut first: Option<Failed> = None;
        for (number, way) in ways.iter().enumerate() {
            let last = number + 1 == ways.len();
            let (mut failed, was_last) = match Self::connect_by(*way, at, parameters, sql, last).await {
                Ok(client) => return Ok(client),
                Err(failed) => failed,
            };
            if let Some(first) = first.take() {
                failed.reached |= first.reached;
                failed.error = more_telling(first.error, failed.error);
            }
            if last || was_last || !failed.other_way_may_help {
                return Err(failed);
            }
            first = Some(failed);
        }
        // Not reached: there is always a way, and the last one returns.
        Err(first.unwrap_or_else(|| Failed::before(ClientError::Unusable)))
    }

    /// One attempt. The failure comes with whether it was in the clear after all, because the server has no TLS and
    /// `only` does not forbid it: then no other way is left.
    async fn connect_by(
        way: Way,
        at: &Address,
        parameters: &ConnectionParameters,
        sql: bool,
        only: bool,
    ) -> Result<Self, (Failed, bool)> {
        let (opened, mut endpoint) =
            open(at, parameters).await.map_err(|error| (Failed::before(error), false))?;
        let (transport, session) = match (way, opened) {
            (Way::Tls, Transport::Tcp(stream)) => {
                let limit = parameters.connect_timeout;
                match within(limit, Doing::Handshaking, encrypt(stream, at, parameters)).await.flatten() {
                    Ok(Encryption::On(stream, session, dial)) => {
                        if let Endpoint::Tcp(_, over) = &mut endpoint {
                            *over = Some(Box::new(dial));
                        }
                        (Transport::Tls(stream), Some(session))
                    }
                    Ok(Encryption::NotOffered(stream)) if !only => (Transport::Tcp(stream), None),
                    Ok(Encryption::NotOffered(_)) => {
                        let problem = Box::new(TlsProblem::NotOffered);
                        let error = ClientError::Tls { at: at.clone(), problem };
                        return Err((Failed { error, reached: true, other_way_may_help: true }, false));
                    }
                    Err(error) => {
                        let other_way_may_help = matches!(error, ClientError::Tls { .. });
                        return Err((Failed { error, reached: true, other_way_may_help }, false));
                    }
                }
            }
            (_, transport) => (transport, None),
        };
        let in_the_clear = session.is_none();
        let mut client = Self::over(transport, at.clone(), sql);
        client.set_session(session);
        let signed_in = client.sign_in(parameters, endpoint);
        let outcome = within(parameters.connect_timeout, Doing::SigningIn, signed_in).await.flatten();
        if client.state == State::Ended {
            // The refused process holds its WAL sender until it is gone, and closes the socket then: the
            // next attempt must not be refused on account of this one.
            let gone = async { while client.receive(&Doing::SigningIn, None).await.is_ok() {} };
            let _ = timeout(DROP_PATIENCE, gone).await;
            client.state = State::Ended;
        }
        match outcome {
            Ok(()) => Ok(client),
            Err(error) => {
                // What the server answered, and not what we found wrong with it.
                let other_way_may_help = error.server().is_some();
                let error = match error {
                    ClientError::ConnectionLost { source: Some(source), doing } => {
                        match TlsProblem::of_alert(&source) {
                            Some(problem) => ClientError::Tls { at: at.clone(), problem: Box::new(problem) },
                            None => ClientError::ConnectionLost { source: Some(source), doing },
                        }
                    }
                    error => error,
                };
                Err((Failed { error, reached: true, other_way_may_help }, in_the_clear && way == Way::Tls))
            }
        }
    }
}

/// What `future` gives, unless that takes longer than `limit`.
async fn within<T>(
    limit: Option<Duration>,
    doing: Doing,
    future: impl Future<Output = T>,
) -> Result<T, ClientError> {
    match limit {
        Some(after) => timeout(after, future).await.map_err(|_| ClientError::TimedOut { doing, after }),
        None => Ok(future.await),
    }
}

/// Opens the stream to `at`. Each address of a name has the whole time to itself: one that swallows
/// everything must not use up that of the others.
async fn open(at: &Address, parameters: &ConnectionParameters) -> Result<(Transport, Endpoint), ClientError> {
    let refused = |source| ClientError::Connect { at: at.clone(), source };
    let limit = parameters.connect_timeout;
    match at {
        Address::Unix { directory, port } => {
            let file = directory.join(format!(".s.PGSQL.{port}"));
            let stream =
                within(limit, Doing::Connecting, UnixStream::connect(&file)).await?.map_err(refused)?;
            Ok((Transport::Unix(stream), Endpoint::Unix(file)))
        }
        Address::Tcp { host, port } => {
            let addresses: Vec<SocketAddr> = match parameters.host_address {
                Some(ip) => vec![(ip, *port).into()],
                None => within(limit, Doing::Connecting, tokio::net::lookup_host((host.as_str(), *port)))
                    .await?
                    .map_err(|source| ClientError::Resolve { host: host.clone(), source })?
                    .take(MOST_ADDRESSES)
                    .collect(),
            };
            let mut last = refused(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
            for address in addresses {
                match within(limit, Doing::Connecting, TcpStream::connect(address)).await {
                    Ok(Ok(stream)) => {
                        Transport::prepare(&stream, &parameters.keepalives).map_err(refused)?;
                        return Ok((Transport::Tcp(stream), Endpoint::Tcp(address, None)));
                    }
                    Ok(Err(error)) => last = refused(error),
                    Err(late) => last = late,
                }
            }
            Err(last)
        }
    }
}

/// An attempt to connect that failed.
struct Failed {
    error: ClientError,
    /// Whether something answered at that address.
    reached: bool,
    /// Whether the server might take us in the clear instead of encrypted, or the other way round.
    other_way_may_help: bool,
}

impl Failed {
    fn before(error: ClientError) -> Self {
        Self { error, reached: false, other_way_may_help: false }
    }
}

/// Of two attempts that failed, what is worth more to a person: that which came further.
fn more_telling(first: ClientError, second: ClientError) -> ClientError {
    fn rank(error: &ClientError) -> u8 {
        match error {
            ClientError::Resolve { .. } | ClientError::Connect { .. } => 0,
            ClientError::Tls { problem, .. } if matches!(**problem, TlsProblem::NotOffered) => 0,
            ClientError::NoHbaEntry { .. } => 1,
            ClientError::Tls { .. } => 2,
            _ => 3,
        }
    }
    match (first, second) {
        (
            ClientError::NoHbaEntry { at, user, mut refusals, encrypted },
            ClientError::NoHbaEntry { refusals: more, encrypted: also, .. },
        ) => {
            refusals.extend(more);
            ClientError::NoHbaEntry { at, user, refusals, encrypted: encrypted || also }
        }
        (first, second) if rank(&second) > rank(&first) => second,
        (first, _) => first,
    }
}

/// How a request for TLS ended.
enum Encryption {
    On(Box<tls::Encrypted>, Session, Dial),
    /// The server has none; the connection goes on in the clear.
    NotOffered(TcpStream),
}

/// Makes an open connection an encrypted one. The files that this takes are read once the server is willing.
async fn encrypt(
    mut stream: TcpStream,
    at: &Address,
    parameters: &ConnectionParameters,
) -> Result<Encryption, ClientError> {
    let failed = |problem| ClientError::Tls { at: at.clone(), problem: Box::new(problem) };
    if !parameters.tls.direct && tls::request(&mut stream, at).await? == Answer::None {
        return Ok(Encryption::NotOffered(stream));
    }
    let host = match at {
        Address::Tcp { host, .. } => host.as_str(),
        Address::Unix { .. } => "",
    };
    let dial = Dial::new(&parameters.tls, host).map_err(failed)?;
    let (stream, session) = dial.handshake(stream).await.map_err(failed)?;
    Ok(Encryption::On(Box::new(stream), session, dial))
}
