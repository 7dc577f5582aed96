//! Short commands whose answer is rows of text.

use super::connection::{ReplicationClient, State};
use super::error::{ClientError, Doing};
use super::message;
use crate::units::{Lsn, SystemIdentifier, TimelineId};
use std::str::FromStr;

/// The most that [`ReplicationClient::query`] keeps of one answer.
const MOST_BYTES: usize = 64 << 20;

/// One row, as it lies in the receive buffer: each value is text or NULL.
#[derive(Debug)]
pub struct Row<'a>(Vec<Option<&'a [u8]>>);

impl<'a> Row<'a> {
    /// The bytes of a column; `None` for NULL and for columns that are not there.
    #[must_use]
    pub fn bytes(&self, column: usize) -> Option<&'a [u8]> {
        self.0.get(column).copied().flatten()
    }

    /// A column as text; `None` for NULL and for what is not UTF-8.
    #[must_use]
    pub fn text(&self, column: usize) -> Option<&'a str> {
        std::str::from_utf8(self.bytes(column)?).ok()
    }

    /// A column as the value it spells; `None` also where it spells none.
    #[must_use]
    pub fn parse<T: FromStr>(&self, column: usize) -> Option<T> {
        self.text(column)?.parse().ok()
    }

    /// How many columns there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no column.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A whole answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rows(Vec<Vec<Option<Vec<u8>>>>);

impl Rows {
    /// The rows in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Row<'_>> {
        self.0.iter().map(|row| Row(row.iter().map(Option::as_deref).collect()))
    }

    /// The first row, where there is one.
    #[must_use]
    pub fn first(&self) -> Option<Row<'_>> {
        self.iter().next()
    }
}

/// What `IDENTIFY_SYSTEM` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SystemIdentity {
    /// The cluster.
    pub system: SystemIdentifier,
    /// The timeline it is on; for a standby the one it replays.
    pub timeline: TimelineId,
    /// Flushed up to here; for a standby, replayed or received up to here.
    pub flushed: Lsn,
}

impl ReplicationClient {
    /// Runs one command and shows each row of its answer to `each`, without keeping any.
    ///
    /// After a server error the connection can be used again.
    ///
    /// # Errors
    /// [`ClientError::NoSql`] is *not* checked here: the server refuses SQL over physical replication.
    pub async fn query_each(
        &mut self,
        command: &str,
        what: &str,
        mut each: impl FnMut(&Row<'_>) -> Result<(), ClientError>,
    ) -> Result<(), ClientError> {
        let doing = Doing::Asking(what.to_owned());
        let limit = Some(self.limits.answer);
        self.send_query(command, &doing).await?;
        let mut outcome = Ok(());
        loop {
            let frame = self.receive(&doing, limit).await?;
            match frame.tag {
                b'D' => {
                    let row = message::row(self.wire.body(&frame)).map(Row);
                    match row {
                        // After a refusal by the caller the rest is only read.
                        Ok(row) if outcome.is_ok() => outcome = each(&row),
                        Ok(_) => {}
                        Err(broken) => return Err(self.protocol(&doing, broken)),
                    }
                }
                b'T' | b'C' | b'I' => {}
                b'Z' => {
                    self.state = State::Idle;
                    return outcome;
                }
                b'E' => return Err(self.failed(&frame, &doing).await),
                _ => return Err(self.unexpected(&frame, &doing)),
            }
        }
    }

    /// Runs one command and returns its rows. `what` names it in errors ("the list of databases").
    ///
    /// # Errors
    /// As [`Self::query_each`]; also when the answer is larger than 64 MiB.
    pub async fn query(&mut self, command: &str, what: &str) -> Result<Rows, ClientError> {
        let mut rows = Rows::default();
        let mut size = 0;
        self.query_each(command, what, |row| {
            size += row.0.iter().map(|value| 32 + value.map_or(0, <[u8]>::len)).sum::<usize>() + 32;
            if size > MOST_BYTES {
                let doing = Doing::Asking(what.to_owned());
                return Err(ClientError::Protocol { doing, what: "an answer that is too large".to_owned() });
            }
            rows.0.push(row.0.iter().map(|value| value.map(<[u8]>::to_vec)).collect());
            Ok(())
        })
        .await?;
        Ok(rows)
    }

    /// Runs SQL.
    ///
    /// # Errors
    /// [`ClientError::NoSql`] where the connection takes none; otherwise as [`Self::query`].
    pub async fn sql(&mut self, statement: &str, what: &str) -> Result<Rows, ClientError> {
        if !self.takes_sql() {
            return Err(ClientError::NoSql);
        }
        self.query(statement, what).await
    }

    /// Who this server is (`IDENTIFY_SYSTEM`).
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn identify_system(&mut self) -> Result<SystemIdentity, ClientError> {
        const WHAT: &str = "the system identifier";
        let rows = self.query("IDENTIFY_SYSTEM", WHAT).await?;
        let identity = rows.first().and_then(|row| {
            Some(SystemIdentity { system: row.parse(0)?, timeline: row.parse(1)?, flushed: row.parse(2)? })
        });
        identity.ok_or_else(|| self.protocol(&Doing::Asking(WHAT.to_owned()), "an answer of another form"))
    }

    /// A setting of the server as `SHOW` prints it ("16MB", "on").
    ///
    /// # Errors
    /// [`ClientError::Server`] with 42704 when the server has no such setting.
    pub async fn show(&mut self, name: &str) -> Result<String, ClientError> {
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.')) {
            return Err(ClientError::Request(format!(
                "\"{}\" is no name of a setting",
                name.escape_default()
            )));
        }
        let what = format!("the setting {name}");
        let rows = self.query(&format!("SHOW {name}"), &what).await?;
        let value = rows.first().and_then(|row| row.text(0).map(str::to_owned));
        value.ok_or_else(|| self.protocol(&Doing::Asking(what), "an answer of another form"))
    }

    /// `server_version_num`, for example 170011.
    ///
    /// # Errors
    /// See [`Self::show`].
    pub async fn server_version_num(&mut self) -> Result<u32, ClientError> {
        let text = self.show("server_version_num").await?;
        let doing = Doing::Asking("the setting server_version_num".to_owned());
        text.parse().map_err(|_| self.protocol(&doing, "a version that is no number"))
    }
}
