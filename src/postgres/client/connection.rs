//! One connection: receiving frames, and what holds when it is dropped.

use super::cancel::CancelHandle;
use super::conninfo::Address;
use super::error::{ClientError, Doing, Notice, classify};
use super::message::{self, Reader};
use super::tls::{Session, TlsProblem};
use super::transport::Transport;
use super::wire::{Frame, Wire, WireError};
use postgres_protocol::message::frontend;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;
use tokio::time::{Instant, timeout, timeout_at};

/// How many notices are kept until somebody takes them; the others are only counted.
const MOST_NOTICES: usize = 4096;
/// How long dropping a connection may wait for its cancel request.
pub(super) const DROP_PATIENCE: Duration = Duration::from_secs(1);

/// How long silence is taken for life. Where a server may rightly be silent for hours, waiting for a
/// checkpoint, there is no limit: TCP keepalives tell whether it is still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Between a short command and its answer.
    pub answer: Duration,
    /// Between two pieces of a base backup that has begun. Generous: the server may read from a slow disk.
    pub silence: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { answer: Duration::from_secs(60), silence: Duration::from_secs(600) }
    }
}

/// How the conversation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The server waits for a command.
    Idle,
    /// A command is under way.
    Busy,
    /// Broken while the server may still be at work.
    Broken,
    /// The server has ended the session.
    Ended,
}

/// A connection to a server, able to run replication commands.
pub struct ReplicationClient {
    pub(super) wire: Wire,
    pub(super) state: State,
    pub(super) limits: Limits,
    at: Address,
    /// What TLS proved; `None` for a connection in the clear.
    session: Option<Session>,
    sql: bool,
    parameters: BTreeMap<String, String>,
    cancel: Option<CancelHandle>,
    notices: Vec<Notice>,
    notices_lost: u64,
    /// Since when nothing came although it was waited for. Waits that were given up count on.
    silent_since: Option<Instant>,
    /// Warnings since [`Self::begin_tap`], beside `notices`.
    tap: Option<Vec<Notice>>,
}

impl fmt::Debug for ReplicationClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplicationClient")
            .field("at", &self.at)
            .field("state", &self.state)
            .field("sql", &self.sql)
            .field("encrypted", &self.session.is_some())
            .finish_non_exhaustive()
    }
}

impl ReplicationClient {
    /// A client over an open stream, before start-up.
    pub(super) fn over(transport: Transport, at: Address, sql: bool) -> Self {
        Self {
            wire: Wire::new(transport),
            state: State::Idle,
            limits: Limits::default(),
            at,
            session: None,
            sql,
            parameters: BTreeMap::new(),
            cancel: None,
            notices: Vec::new(),
            notices_lost: 0,
            silent_since: None,
            tap: None,
        }
    }

    /// Other limits than the default ones.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Where this connection leads.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.at
    }

    /// Whether the connection is encrypted.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        self.session.is_some()
    }

    /// What TLS proved about the server.
    pub(super) fn session(&self) -> Option<&Session> {
        self.session.as_ref()
    }

    pub(super) fn set_session(&mut self, session: Option<Session>) {
        self.session = session;
    }

    /// Whether plain SQL can be run; if not, only replication commands and `SHOW`.
    #[must_use]
    pub fn takes_sql(&self) -> bool {
        self.sql
    }

    /// A value the server reported (`ParameterStatus`), such as `server_version` or `server_encoding`.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str)
    }

    /// What can cancel this connection's command from elsewhere.
    #[must_use]
    pub fn cancel_handle(&self) -> Option<CancelHandle> {
        self.cancel.clone()
    }

    /// Takes the notices and warnings that came since the last call, in order.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// How many notices came that could not be kept.
    #[must_use]
    pub fn notices_lost(&self) -> u64 {
        self.notices_lost
    }

    /// Says goodbye. Dropping an idle connection does as well, only less politely.
    pub async fn close(mut self) {
        if self.state == State::Idle {
            frontend::terminate(self.wire.outgoing());
            let _ = timeout(DROP_PATIENCE, self.wire.flush()).await;
            self.state = State::Ended;
        }
    }

    /// Cancels whatever is under way and waits, at most `patience`, until the server has taken note. The same
    /// happens on drop, but blocking.
    pub async fn abandon(mut self, patience: Duration) {
        if matches!(self.state, State::Busy | State::Broken) {
            if let Some(handle) = &self.cancel {
                let _ = handle.cancel(patience).await;
            }
            self.state = State::Ended;
        }
    }

    /// Keeps a copy of every warning from here on, whoever takes the notices.
    pub(super) fn begin_tap(&mut self) {
        self.tap = Some(Vec::new());
    }

    /// The warnings since [`Self::begin_tap`].
    pub(super) fn end_tap(&mut self) -> Vec<Notice> {
        self.tap.take().unwrap_or_default()
    }

    pub(super) fn signed_in(&mut self, cancel: Option<CancelHandle>) {
        self.cancel = cancel;
        self.state = State::Idle;
    }

    /// Puts a simple query on its way. The connection is busy from here until ReadyForQuery.
    pub(super) async fn send_query(&mut self, query: &str, doing: &Doing) -> Result<(), ClientError> {
        if self.state != State::Idle {
            return Err(ClientError::Unusable);
        }
        frontend::query(query, self.wire.outgoing())
            .map_err(|_| ClientError::Request("a command holds a zero byte".to_owned()))?;
        self.state = State::Busy;
        self.silent_since = None;
        self.flush(doing).await
    }

    /// Sends what is waiting. A server that closed the session has often said why: that is the error then.
    pub(super) async fn flush(&mut self, doing: &Doing) -> Result<(), ClientError> {
        let limit = self.limits.answer;
        match timeout(limit, self.wire.flush()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                self.state = State::Broken;
                for _ in 0..MOST_NOTICES {
                    match timeout(DROP_PATIENCE, self.receive(doing, None)).await {
                        Ok(Ok(frame)) if frame.tag == b'E' => return Err(self.failed(&frame, doing).await),
                        Ok(Ok(_)) => {}
                        // So says TLS why.
                        Ok(Err(ClientError::ConnectionLost { source: Some(source), doing }))
                            if TlsProblem::of_alert(&source).is_some() =>
                        {
                            return Err(ClientError::ConnectionLost { source: Some(source), doing });
                        }
                        _ => break,
                    }
                }
                Err(ClientError::ConnectionLost { doing: doing.clone(), source: Some(error) })
            }
            Err(_) => {
                self.state = State::Broken;
                Err(ClientError::TimedOut { doing: doing.clone(), after: limit })
            }
        }
    }

    /// The next frame that is not a notice or a parameter's new value. Cancel-safe.
    ///
    /// `limit` is the longest silence; `None` waits as long as the connection lives. Whoever gives up a wait and
    /// waits again goes on with the same silence.
    pub(super) async fn receive(
        &mut self,
        doing: &Doing,
        limit: Option<Duration>,
    ) -> Result<Frame, ClientError> {
        loop {
            match self.wire.arrived() {
                Ok(Some(frame)) => match frame.tag {
                    b'N' => self.note(&frame, doing)?,
                    b'S' => self.learn(&frame, doing)?,
                    // A NOTIFY that somebody sends to everybody.
                    b'A' => {}
                    _ => return Ok(frame),
                },
                Ok(None) => {
                    let since = *self.silent_since.get_or_insert_with(Instant::now);
                    let filled = match limit {
                        Some(limit) => timeout_at(since + limit, self.wire.fill()).await,
                        None => Ok(self.wire.fill().await),
                    };
                    match (filled, limit) {
                        (Ok(Ok(())), _) => self.silent_since = None,
                        (Ok(Err(error)), _) => return Err(self.broken(error, doing)),
                        (Err(_), limit) => {
                            self.state = State::Broken;
                            let after = limit.unwrap_or_default();
                            return Err(ClientError::TimedOut { doing: doing.clone(), after });
                        }
                    }
                }
                Err(error) => return Err(self.broken(error, doing)),
            }
        }
    }

    fn broken(&mut self, error: WireError, doing: &Doing) -> ClientError {
        let doing = doing.clone();
        self.state = State::Broken;
        match error {
            WireError::Closed => ClientError::ConnectionLost { doing, source: None },
            WireError::Io(source) => ClientError::ConnectionLost { doing, source: Some(source) },
            WireError::Length { tag, length } => ClientError::Protocol {
                doing,
                what: format!("a message of type \"{}\" and {length} bytes", tag.escape_ascii()),
            },
        }
    }

    fn note(&mut self, frame: &Frame, doing: &Doing) -> Result<(), ClientError> {
        let notice = message::notice(self.wire.body(frame)).map_err(|what| self.protocol(doing, what))?;
        match &mut self.tap {
            Some(tap) if notice.is_warning() && tap.len() < MOST_NOTICES => tap.push(notice.clone()),
            _ => {}
        }
        if self.notices.len() < MOST_NOTICES {
            self.notices.push(notice);
        } else {
            self.notices_lost += 1;
        }
        Ok(())
    }

    fn learn(&mut self, frame: &Frame, doing: &Doing) -> Result<(), ClientError> {
        let mut reader = Reader(self.wire.body(frame));
        let pair =
            reader.string().and_then(|name| Ok((message::text(name), message::text(reader.string()?))));
        let (name, value) = pair.map_err(|what| self.protocol(doing, what))?;
        // Servers report a dozen; a flood of invented names is not kept.
        if self.parameters.len() < 256 || self.parameters.contains_key(&name) {
            self.parameters.insert(name, value);
        }
        Ok(())
    }

    /// The server does not keep to the protocol: nothing it says can be trusted any more.
    pub(super) fn protocol(&mut self, doing: &Doing, what: impl Into<String>) -> ClientError {
        self.state = State::Broken;
        ClientError::Protocol { doing: doing.clone(), what: what.into() }
    }

    pub(super) fn unexpected(&mut self, frame: &Frame, doing: &Doing) -> ClientError {
        self.protocol(doing, format!("an unexpected message of type \"{}\"", frame.tag.escape_ascii()))
    }

    /// The notice in an ErrorResponse; notes whether it ends the session.
    pub(super) fn error_of(&mut self, frame: &Frame, doing: &Doing) -> Result<Notice, ClientError> {
        let notice = message::notice(self.wire.body(frame)).map_err(|what| self.protocol(doing, what))?;
        if notice.ends_the_session() {
            self.state = State::Ended;
        }
        Ok(notice)
    }

    /// The error of an ErrorResponse, after the conversation was brought back to where commands are taken.
    pub(super) async fn failed(&mut self, frame: &Frame, doing: &Doing) -> ClientError {
        let notice = match self.error_of(frame, doing) {
            Ok(notice) => notice,
            Err(error) => return error,
        };
        while self.state == State::Busy {
            match self.receive(doing, Some(self.limits.answer)).await {
                Ok(frame) if frame.tag == b'Z' => self.state = State::Idle,
                Ok(_) => {}
                // The first error says more than that the connection then broke.
                Err(_) => break,
            }
        }
        classify(doing.clone(), notice)
    }
}

impl Drop for ReplicationClient {
    /// A server that makes a checkpoint for us does not look at the socket: it has to be told.
    fn drop(&mut self) {
        let Some(handle) = self.cancel.take() else { return };
        if matches!(self.state, State::Busy | State::Broken) {
            let (done, wait) = std::sync::mpsc::channel();
            // A thread, because connecting to a stuck server may block without limit.
            let asked = std::thread::Builder::new().name("cancel".to_owned()).spawn(move || {
                let _ = handle.cancel_blocking(DROP_PATIENCE);
                let _ = done.send(());
            });
            if asked.is_ok() {
                let _ = wait.recv_timeout(DROP_PATIENCE);
            }
        }
    }
}
