//! Start-up and authentication: trust, peer, password, md5, SCRAM-SHA-256 with and without channel binding.

use super::cancel::{CancelHandle, Endpoint};
use super::connection::ReplicationClient;
use super::conninfo::ConnectionParameters;
use super::error::{ClientError, Doing, Notice, classify_at_start};
use super::message::{self, Reader};
use super::tls::{BindingProblem, ChannelBinding as Wanted, EndPoint};
use super::wire::{Frame, WireError};
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{
    ChannelBinding, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256,
};
use postgres_protocol::message::frontend;

/// Where an authentication exchange stands. A server gets one question; what it asks after that is refused.
enum Exchange {
    NotAsked,
    PasswordSent,
    ScramBegun(ScramSha256, Bound),
    ScramProved(ScramSha256, Bound),
    ServerVerified(Bound),
}

/// Whether the exchange proves that nobody is between the two ends of TLS.
type Bound = bool;

impl ReplicationClient {
    /// From the first byte to ReadyForQuery. The caller bounds the time.
    pub(super) async fn sign_in(
        &mut self,
        parameters: &ConnectionParameters,
        endpoint: Endpoint,
    ) -> Result<(), ClientError> {
        const DOING: Doing = Doing::SigningIn;
        let replication = if self.takes_sql() { "database" } else { "true" };
        let mut pairs = vec![
            ("user", parameters.user.as_str()),
            ("database", parameters.database.as_str()),
            ("replication", replication),
            ("application_name", parameters.application_name.as_str()),
            // The server then sends every byte as it is; a conversion would damage paths or fail.
            ("client_encoding", "SQL_ASCII"),
        ];
        pairs.extend(parameters.options.as_deref().map(|options| ("options", options)));
        frontend::startup_message(pairs, self.wire.outgoing())
            .map_err(|_| ClientError::Request("a connection parameter holds a zero byte".to_owned()))?;
        self.flush(&DOING).await?;
        self.first_word().await?;

        let mut exchange = Exchange::NotAsked;
        loop {
            let frame = self.receive(&DOING, None).await?;
            match frame.tag {
                b'R' if self.answer(&frame, parameters, &mut exchange).await? => break,
                b'R' => {}
                // NegotiateProtocolVersion: we asked for the oldest there is and for no extension.
                b'v' => {}
                b'E' => return Err(self.refused(&frame, parameters)),
                _ => return Err(self.unexpected(&frame, &DOING)),
            }
        }
        let mut cancel = None;
        loop {
            let frame = self.receive(&DOING, None).await?;
            match frame.tag {
                b'K' => cancel = CancelHandle::new(endpoint.clone(), self.wire.body(&frame)),
                b'Z' => {
                    self.signed_in(cancel);
                    return Ok(());
                }
                b'v' => {}
                b'E' => return Err(self.refused(&frame, parameters)),
                _ => return Err(self.unexpected(&frame, &DOING)),
            }
        }
    }

    /// Looks at how the answer begins: other services listen on ports too.
    async fn first_word(&mut self) -> Result<(), ClientError> {
        while self.wire.unread().len() < 5 {
            match self.wire.fill().await {
                Ok(()) => {}
                Err(WireError::Io(source)) => {
                    return Err(ClientError::ConnectionLost {
                        doing: Doing::SigningIn,
                        source: Some(source),
                    });
                }
                Err(_) if self.wire.unread().is_empty() => {
                    return Err(ClientError::ConnectionLost { doing: Doing::SigningIn, source: None });
                }
                Err(_) => break,
            }
        }
        let begin = self.wire.unread();
        match begin {
            // Before it can speak the protocol (no memory, no process) a server sends "E" and bare text.
            [b'E', text @ ..] if text.first() != Some(&0) => {
                let message = message::printable_line(text);
                let server = Box::new(Notice { severity: "FATAL".to_owned(), message, ..Notice::default() });
                Err(ClientError::Server { doing: Doing::SigningIn, server })
            }
            [b'R' | b'E' | b'v' | b'N', 0, ..] => Ok(()),
            _ => Err(ClientError::NotPostgres {
                at: self.address().clone(),
                answer: message::printable_line(begin),
            }),
        }
    }

    fn refused(&mut self, frame: &Frame, parameters: &ConnectionParameters) -> ClientError {
        match self.error_of(frame, &Doing::SigningIn) {
            Ok(server) => {
                let from = parameters.password.as_ref().map(|(_, from)| from);
                classify_at_start(
                    (self.address(), self.is_encrypted()),
                    &parameters.user,
                    &parameters.database,
                    from,
                    server,
                )
            }
            Err(error) => error,
        }
    }

    /// Answers one authentication request; `true` when the server is content.
    async fn answer(
        &mut self,
        frame: &Frame,
        parameters: &ConnectionParameters,
        exchange: &mut Exchange,
    ) -> Result<bool, ClientError> {
        const DOING: Doing = Doing::SigningIn;
        let body = self.wire.body(frame).to_vec();
        let mut reader = Reader(&body);
        let code = reader.i32().map_err(|what| self.protocol(&DOING, what))?;
        let at = self.address().clone();
        let required = parameters.tls.channel_binding == Wanted::Require;
        // Before anything is proved to it, let alone a password sent.
        let encrypted = self.is_encrypted();
        let unbound = |method| {
            match (required, encrypted) {
                (true, true) => Err(BindingProblem::Method(method)),
                (true, false) => Err(BindingProblem::NoTls),
                (false, _) => Ok(()),
            }
            .map_err(|problem| ClientError::ChannelBinding { at: at.clone(), problem })
        };
        let password = || match &parameters.password {
            Some((password, _)) => Ok(password.bytes()),
            None => Err(ClientError::PasswordMissing { at: at.clone(), user: parameters.user.clone() }),
        };
        *exchange = match (code, std::mem::replace(exchange, Exchange::NotAsked)) {
            // Without the proof of the server a false one could wave us through.
            (0, Exchange::ScramBegun(..) | Exchange::ScramProved(..)) => {
                return Err(ClientError::ServerNotAuthentic);
            }
            (0, Exchange::ServerVerified(true)) => return Ok(true),
            (0, _) => {
                unbound("trust, peer or a certificate")?;
                return Ok(true);
            }
            (3, Exchange::NotAsked) => {
                unbound("password")?;
                let password = password()?;
                frontend::password_message(password, self.wire.outgoing()).map_err(zero_in_password)?;
                Exchange::PasswordSent
            }
            (5, Exchange::NotAsked) => {
                unbound("md5")?;
                let salt = reader.array().map_err(|what| self.protocol(&DOING, what))?;
                let hash = md5_hash(parameters.user.as_bytes(), password()?, salt);
                frontend::password_message(hash.as_bytes(), self.wire.outgoing())
                    .map_err(zero_in_password)?;
                Exchange::PasswordSent
            }
            (10, Exchange::NotAsked) => {
                let (mut plain, mut plus) = (false, false);
                loop {
                    match reader.string() {
                        Ok(b"") => break,
                        Ok(mechanism) => {
                            plain |= mechanism == SCRAM_SHA_256.as_bytes();
                            plus |= mechanism == SCRAM_SHA_256_PLUS.as_bytes();
                        }
                        Err(what) => return Err(self.protocol(&DOING, what)),
                    }
                }
                let (mechanism, binding) = self
                    .binding(parameters.tls.channel_binding, plain, plus)
                    .map_err(|problem| ClientError::ChannelBinding { at: at.clone(), problem })?
                    .ok_or_else(|| ClientError::AuthenticationUnsupported { method: "SASL".to_owned() })?;
                let scram = ScramSha256::new(password()?, binding);
                frontend::sasl_initial_response(mechanism, scram.message(), self.wire.outgoing())
                    .map_err(zero_in_password)?;
                Exchange::ScramBegun(scram, mechanism == SCRAM_SHA_256_PLUS)
            }
            (11, Exchange::ScramBegun(mut scram, bound)) => {
                scram.update(reader.0).map_err(|error| self.protocol(&DOING, error.to_string()))?;
                frontend::sasl_response(scram.message(), self.wire.outgoing()).map_err(zero_in_password)?;
                Exchange::ScramProved(scram, bound)
            }
            (12, Exchange::ScramProved(mut scram, bound)) => {
                scram.finish(reader.0).map_err(|_| ClientError::ServerNotAuthentic)?;
                Exchange::ServerVerified(bound)
            }
            (2, _) => return Err(ClientError::AuthenticationUnsupported { method: "Kerberos".to_owned() }),
            (7 | 8, _) => return Err(ClientError::AuthenticationUnsupported { method: "GSSAPI".to_owned() }),
            (9, _) => return Err(ClientError::AuthenticationUnsupported { method: "SSPI".to_owned() }),
            (3 | 5 | 10 | 11 | 12, _) => return Err(self.protocol(&DOING, "authentication out of order")),
            (other, _) => {
                return Err(ClientError::AuthenticationUnsupported { method: format!("unknown ({other})") });
            }
        };
        self.flush(&DOING).await?;
        Ok(false)
    }

    /// Which mechanism, and what it says about channel binding; libpq's `pg_SASL_init` and
    /// `build_client_first_message`. `None` when the server offers none that we know.
    ///
    /// Where the server offers the bound mechanism, the other one is taken on our own wish only: a flag in the exchange
    /// ("y": we could and you did not offer; "n": we cannot) lets the server find out when somebody in between took the
    /// offer away.
    fn binding(
        &self,
        wanted: Wanted,
        plain: bool,
        plus: bool,
    ) -> Result<Option<(&'static str, ChannelBinding)>, BindingProblem> {
        let required = wanted == Wanted::Require;
        let without = |binding| Ok(plain.then_some((SCRAM_SHA_256, binding)));
        let Some(session) = self.session() else {
            return match (required, plus) {
                (true, _) => Err(BindingProblem::NoTls),
                (false, true) => Err(BindingProblem::OfferedInTheClear),
                (false, false) => without(ChannelBinding::unsupported()),
            };
        };
        match (plus, &session.end_point) {
            _ if wanted == Wanted::Disable => without(ChannelBinding::unsupported()),
            (true, EndPoint::Hash(hash)) => {
                Ok(Some((SCRAM_SHA_256_PLUS, ChannelBinding::tls_server_end_point(hash.clone()))))
            }
            // libpq always fails here. With a verified certificate nobody can be in between, and going on is safe; with
            // any other, somebody could show a certificate of this kind to get rid of the binding.
            (true, EndPoint::Unknown(algorithm)) => {
                if required || !session.verified {
                    let algorithm = algorithm.clone().unwrap_or_else(|| "an unknown algorithm".to_owned());
                    return Err(BindingProblem::Signature { algorithm, required });
                }
                without(ChannelBinding::unsupported())
            }
            (false, _) if required => Err(BindingProblem::Method("SCRAM-SHA-256 without it")),
            (false, EndPoint::Hash(_)) => without(ChannelBinding::unrequested()),
            (false, EndPoint::Unknown(_)) => without(ChannelBinding::unsupported()),
        }
    }
}

fn zero_in_password(_: std::io::Error) -> ClientError {
    ClientError::Request("the password holds a zero byte".to_owned())
}
