//! `START_REPLICATION PHYSICAL` (`src/backend/replication/walsender.c`): WAL as it was written, from a position
//! to a wanted end, to the end of a timeline, or for ever.

use super::connection::{ReplicationClient, State};
use super::error::{ClientError, Doing, Notice, classify};
use super::message::{self, Reader};
use crate::units::{Lsn, TimelineId};
use bytes::BufMut;
use postgres_protocol::message::frontend;
use std::fmt;
use std::ops::Range;
use std::str::FromStr;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// How often a standby reports when nothing else makes it (`wal_receiver_status_interval`).
const REPORT_INTERVAL: Duration = Duration::from_secs(10);
/// Unanswered reports, each asking for an answer, after which the server is taken for dead.
const MOST_UNANSWERED: u32 = 6;

/// The name of a replication slot: 1 to 63 of `a-z 0-9 _`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotName(String);

impl FromStr for SlotName {
    type Err = ClientError;

    fn from_str(text: &str) -> Result<Self, ClientError> {
        let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        if (1..=63).contains(&text.len()) && text.bytes().all(fits) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ClientError::Request(format!(
                "\"{}\" cannot name a replication slot: use 1 to 63 of a-z 0-9 _",
                text.escape_debug()
            )))
        }
    }
}

impl fmt::Display for SlotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// From where a slot holds WAL back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotPosition {
    /// The oldest position that is kept.
    pub restart: Lsn,
    /// The timeline of that position.
    pub timeline: TimelineId,
}

/// A timeline history file, byte for byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimelineHistory {
    /// Its name in `pg_wal`.
    pub file_name: String,
    /// Its contents.
    pub contents: Vec<u8>,
}

/// Which WAL to stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalRequest {
    /// The first byte wanted.
    pub start: Lsn,
    /// The timeline it is on.
    pub timeline: TimelineId,
    /// The slot to use, which must exist.
    pub slot: Option<SlotName>,
    /// The position before which to stop; `None` streams on.
    pub stop: Option<Lsn>,
}

/// What comes next in a WAL stream. Bytes are valid until the next call.
#[derive(Debug, PartialEq, Eq)]
pub enum WalEvent<'a> {
    /// WAL from `at` on, contiguous with what came before.
    Data {
        /// The position of the first byte.
        at: Lsn,
        /// Up to 128 KiB; ends before the wanted end.
        bytes: &'a [u8],
    },
    /// The server has nothing to send now.
    Keepalive {
        /// Up to where the server has sent or could send.
        server_end: Lsn,
    },
    /// The wanted end is reached; the connection takes other commands.
    Stopped {
        /// The wanted end.
        at: Lsn,
    },
    /// The timeline ended before the wanted end; the connection takes other commands.
    EndOfTimeline {
        /// The timeline that goes on.
        next: TimelineId,
        /// Where it branches off: everything before has been sent.
        switch: Lsn,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// CopyBothResponse is to come, or at the very end of a timeline the row right away.
    Begin,
    Streaming,
    /// We sent CopyDone.
    Stopping,
    /// The server's CopyDone came, or it had nothing to send: a row with the next timeline, perhaps.
    Ending,
    Done,
}

enum Found {
    Data { at: Lsn, bytes: Range<usize> },
    Keepalive { server_end: Lsn },
    Stopped { at: Lsn },
    EndOfTimeline { next: TimelineId, switch: Lsn },
}

/// A running WAL stream. Dropped before its end, it leaves the connection unusable.
pub struct WalStream<'c> {
    client: &'c mut ReplicationClient,
    request: WalRequest,
    phase: Phase,
    /// Everything before was handed out.
    received: Lsn,
    /// Everything before is safe, says the caller.
    durable: Lsn,
    next_timeline: Option<(TimelineId, Lsn)>,
    reported: Instant,
    unanswered: u32,
    /// Since when nothing came although it was waited for, or the server was asked.
    quiet_since: Option<Instant>,
    /// The server's clock when we last heard of it. Reports carry a time; ours would only be another clock.
    server_time: (i64, Instant),
    error: Option<Notice>,
}

impl fmt::Debug for WalStream<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WalStream")
            .field("phase", &self.phase)
            .field("received", &self.received)
            .finish_non_exhaustive()
    }
}

impl ReplicationClient {
    /// Asks for WAL and returns at once. That the WAL is no longer there is told by [`WalStream::next`].
    ///
    /// # Errors
    /// When the command cannot be sent.
    pub async fn start_replication(&mut self, request: WalRequest) -> Result<WalStream<'_>, ClientError> {
        let slot = request.slot.as_ref().map(|name| format!("SLOT \"{name}\" ")).unwrap_or_default();
        let command =
            format!("START_REPLICATION {slot}PHYSICAL {} TIMELINE {}", request.start, request.timeline);
        self.send_query(&command, &Doing::ReceivingWal(request.start)).await?;
        let now = Instant::now();
        Ok(WalStream {
            client: self,
            phase: Phase::Begin,
            received: request.start,
            durable: Lsn::INVALID,
            next_timeline: None,
            reported: now,
            unanswered: 0,
            quiet_since: None,
            server_time: (0, now),
            error: None,
            request,
        })
    }

    /// The history file of a timeline other than 1.
    ///
    /// # Errors
    /// [`ClientError::Server`] (58P01) when the server does not have it.
    pub async fn timeline_history(&mut self, timeline: TimelineId) -> Result<TimelineHistory, ClientError> {
        let what = format!("the history of timeline {timeline}");
        let rows = self.query(&format!("TIMELINE_HISTORY {timeline}"), &what).await?;
        let history = rows.first().and_then(|row| {
            let file_name = row.text(0).filter(|name| *name == timeline.history_name())?.to_owned();
            Some(TimelineHistory { file_name, contents: row.bytes(1)?.to_vec() })
        });
        history.ok_or_else(|| self.protocol(&Doing::Asking(what), "an answer of another form"))
    }

    /// Makes a slot that holds back WAL from the last checkpoint's redo position on and vanishes with this
    /// connection.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn create_temporary_slot(&mut self, name: &SlotName) -> Result<(), ClientError> {
        let command = format!("CREATE_REPLICATION_SLOT \"{name}\" TEMPORARY PHYSICAL (RESERVE_WAL true)");
        self.query(&command, "a temporary replication slot").await.map(drop)
    }

    /// From where a slot holds WAL back; `None` when there is no such slot or it holds nothing back.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn read_slot(&mut self, name: &SlotName) -> Result<Option<SlotPosition>, ClientError> {
        let rows = self.query(&format!("READ_REPLICATION_SLOT \"{name}\""), "the replication slot").await?;
        Ok(rows
            .first()
            .and_then(|row| Some(SlotPosition { restart: row.parse(1)?, timeline: row.parse(2)? })))
    }
}

impl WalStream<'_> {
    /// The next event. Cancel-safe: an event is returned or will be returned by the next call.
    ///
    /// Waits as long as the server answers; reports to it every ten seconds, while somebody calls this.
    /// After [`WalEvent::Stopped`] or [`WalEvent::EndOfTimeline`] nothing more comes.
    ///
    /// # Errors
    /// [`ClientError::WalRemoved`] when the server has recycled what was asked for.
    pub async fn next(&mut self) -> Result<WalEvent<'_>, ClientError> {
        let found = self.find().await;
        if found.is_err() {
            self.phase = Phase::Done;
        }
        Ok(match found? {
            Found::Data { at, bytes } => WalEvent::Data { at, bytes: self.client.wire.slice(bytes) },
            Found::Keepalive { server_end } => WalEvent::Keepalive { server_end },
            Found::Stopped { at } => WalEvent::Stopped { at },
            Found::EndOfTimeline { next, switch } => WalEvent::EndOfTimeline { next, switch },
        })
    }

    /// Tells that everything before `at` is durable; the server learns it with the next report. A slot then
    /// lets go of it, and a server that waits for us as a synchronous standby goes on.
    pub fn confirm(&mut self, at: Lsn) {
        self.durable = self.durable.max(at.min(self.received));
    }

    /// Everything before this was handed out.
    #[must_use]
    pub fn received(&self) -> Lsn {
        self.received
    }

    async fn find(&mut self) -> Result<Found, ClientError> {
        if self.phase == Phase::Done {
            return Err(ClientError::Unusable);
        }
        loop {
            let doing = Doing::ReceivingWal(self.received);
            if self.phase == Phase::Streaming {
                if self.request.stop.is_some_and(|stop| self.received >= stop) {
                    self.report(false);
                    frontend::copy_done(self.client.wire.outgoing());
                    self.phase = Phase::Stopping;
                } else if self.reported.elapsed() >= REPORT_INTERVAL {
                    self.report(false);
                }
            }
            self.client.flush(&doing).await?;
            // Waits that the caller gives up count: it looks up often, for an interrupt.
            let since = *self.quiet_since.get_or_insert_with(Instant::now);
            let frame = match timeout_at(since + REPORT_INTERVAL, self.client.receive(&doing, None)).await {
                Ok(Ok(frame)) => frame,
                Ok(Err(lost)) => return Err(self.error.take().map_or(lost, |error| self.sort(error))),
                Err(_) => {
                    self.quiet_since = None;
                    self.unanswered += 1;
                    if self.unanswered > MOST_UNANSWERED {
                        self.client.state = State::Broken;
                        return Err(ClientError::TimedOut {
                            doing,
                            after: REPORT_INTERVAL * self.unanswered,
                        });
                    }
                    if self.phase == Phase::Streaming {
                        self.report(true);
                    }
                    continue;
                }
            };
            self.unanswered = 0;
            self.quiet_since = None;
            match frame.tag {
                b'E' => {
                    let error = self.client.error_of(&frame, &doing)?;
                    if self.client.state == State::Ended {
                        return Err(self.sort(error));
                    }
                    self.error = Some(error);
                }
                b'Z' => {
                    let stopping = self.request.stop.is_some_and(|stop| self.received >= stop);
                    self.phase = Phase::Done;
                    self.client.state = State::Idle;
                    return match (self.error.take(), self.next_timeline) {
                        (Some(error), _) => Err(self.sort(error)),
                        (None, _) if stopping => Ok(Found::Stopped { at: self.received }),
                        (None, Some((next, switch))) => Ok(Found::EndOfTimeline { next, switch }),
                        (None, None) => Err(self.client.protocol(&doing, "the WAL ended without a reason")),
                    };
                }
                _ if self.error.is_some() => {}
                tag => match self.step(tag, frame.body) {
                    Ok(Some(found)) => return Ok(found),
                    Ok(None) => {}
                    Err(what) => return Err(self.client.protocol(&doing, what)),
                },
            }
        }
    }

    fn step(&mut self, tag: u8, range: Range<usize>) -> Result<Option<Found>, String> {
        match (tag, self.phase) {
            // CopyBothResponse.
            (b'W', Phase::Begin) => self.phase = Phase::Streaming,
            (b'd', Phase::Streaming) => return self.copy_data(range),
            // What was under way when we said stop.
            (b'd', Phase::Stopping) => {}
            (b'c', Phase::Streaming) => {
                frontend::copy_done(self.client.wire.outgoing());
                self.phase = Phase::Ending;
            }
            (b'c', Phase::Stopping) => self.phase = Phase::Ending,
            // A server that shuts down sends what it has, and this.
            (b'C', Phase::Streaming) => {
                let message = "the server is shutting down".to_owned();
                self.error = Some(Notice { sqlstate: "57P01".to_owned(), message, ..Notice::default() });
            }
            (b'T', Phase::Begin | Phase::Ending) => self.phase = Phase::Ending,
            (b'D', Phase::Ending) => {
                let row = message::row(self.client.wire.slice(range))?;
                let text = |n: usize| std::str::from_utf8((*row.get(n)?)?).ok();
                let next = text(0).and_then(|next| next.parse().ok());
                let switch = text(1).and_then(|switch| switch.parse().ok());
                self.next_timeline = Some(next.zip(switch).ok_or("a row that is no timeline")?);
            }
            (b'C', Phase::Ending) => {}
            _ => return Err(format!("an unexpected message of type \"{}\"", tag.escape_ascii())),
        }
        Ok(None)
    }

    fn copy_data(&mut self, range: Range<usize>) -> Result<Option<Found>, String> {
        let mut reader = Reader(self.client.wire.slice(range.clone()));
        match reader.byte()? {
            b'w' => {
                let at = Lsn::new(reader.u64()?);
                let _server_end = reader.u64()?;
                let time = reader.u64()?.cast_signed();
                let begin = range.end - reader.0.len();
                if at != self.received {
                    return Err(format!("WAL at {at}, but {} comes next", self.received));
                }
                let mut length = reader.0.len();
                if let Some(wanted) = self.request.stop.and_then(|stop| stop.since(at)) {
                    length = usize::try_from(wanted).unwrap_or(usize::MAX).min(length);
                }
                self.received = at.forward(length as u64).ok_or("WAL beyond the last position")?;
                self.server_time = (time, Instant::now());
                Ok(Some(Found::Data { at, bytes: begin..begin + length }))
            }
            b'k' => {
                let server_end = Lsn::new(reader.u64()?);
                let time = reader.u64()?.cast_signed();
                let wants_reply = reader.byte()? != 0;
                self.server_time = (time, Instant::now());
                if wants_reply {
                    self.report(false);
                }
                Ok(Some(Found::Keepalive { server_end }))
            }
            kind => Err(format!("an unexpected part of type \"{}\"", kind.escape_ascii())),
        }
    }

    /// Puts a standby status update on its way.
    fn report(&mut self, wants_reply: bool) {
        self.reported = Instant::now();
        let (then, at) = self.server_time;
        let since = i64::try_from(at.elapsed().as_micros()).unwrap_or(0);
        let outgoing = self.client.wire.outgoing();
        outgoing.put_u8(b'd');
        outgoing.put_i32(4 + 1 + 4 * 8 + 1);
        outgoing.put_u8(b'r');
        outgoing.put_u64(self.received.as_u64());
        outgoing.put_u64(self.durable.as_u64());
        // We apply nothing; but `synchronous_commit = remote_apply` would wait for ever for less.
        outgoing.put_u64(self.durable.as_u64());
        outgoing.put_i64(then.saturating_add(since));
        outgoing.put_u8(u8::from(wants_reply));
    }

    fn sort(&self, server: Notice) -> ClientError {
        if server.sqlstate == "58P01" {
            ClientError::WalRemoved {
                at: self.received,
                timeline: self.request.timeline,
                server: Box::new(server),
            }
        } else {
            classify(Doing::ReceivingWal(self.received), server)
        }
    }
}
