//! The port mapping that the gateway is asked for by UPnP (RFC 6081 section 5.3).
//!
//! Only the default gateway is asked. Gateways restart, forget and change their address, so the
//! request is repeated. The mapping is recorded in a file, so that it is removed even after a crash.

mod schedule;
mod search;

use std::{
    fmt,
    future::pending,
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4},
    time::Duration,
};

use igd_next::{
    AddPortError, GetExternalIpError, PortMappingProtocol, RequestError,
    aio::{Gateway, tokio::Tokio},
};
use teredo_common::{address::Endpoint, scope::Ipv4Scope};
use tokio::{
    task::{JoinError, JoinHandle},
    time::timeout,
};

use super::record::{Record, Recorded, hardware_address};
use crate::node::{clock, timer::Timer};
use schedule::Schedule;

/// The description in the gateway's list of mappings.
const DESCRIPTION: &str = "TEREDO";
/// The wait for the answer to a request.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// The link between this host and the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GatewayLink {
    /// This host's address on the link, with the service port.
    pub local: SocketAddrV4,
    /// The gateway's address.
    pub gateway: Ipv4Addr,
}

/// The mapping of the service port, while there is one.
#[derive(Debug)]
pub struct PortMapping {
    record: Record,
    /// The link on which a mapping is wanted.
    link: Option<GatewayLink>,
    schedule: Schedule,
    timer: Timer,
    /// The request that is pending, or the removal of the mapping on another link.
    task: Option<JoinHandle<Option<Attempt>>>,
    /// Whether a request on this link has ended.
    has_result: bool,
    /// The gateway that has the mapping, or may have it.
    gateway: Option<Gateway<Tokio>>,
    external: Option<SocketAddrV4>,
    /// What the log has about the mapping.
    told: String,
}

/// The end of a request.
#[derive(Debug)]
struct Attempt {
    /// The gateway that has the mapping, or may have it.
    gateway: Option<Gateway<Tokio>>,
    answer: Answer,
    /// A sentence for the log.
    text: String,
}

/// The answer of a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// It forwards this endpoint.
    Forwards(SocketAddrV4),
    /// It does not forward.
    Refuses,
    /// There is none, or none that is understood.
    None,
}

impl PortMapping {
    /// Returns the state without a mapping, for the instance of this name.
    pub fn new(instance: &str) -> Self {
        Self {
            record: Record::of(instance),
            link: None,
            schedule: Schedule::default(),
            timer: Timer::new(),
            task: None,
            has_result: false,
            gateway: None,
            external: None,
            told: String::new(),
        }
    }

    /// Returns the endpoint that the gateway forwards to the service port.
    pub fn external(&self) -> Option<Endpoint> {
        self.external.map(Into::into)
    }

    /// Returns whether the first request on the link is pending.
    pub fn is_pending(&self) -> bool {
        self.task.is_some() && !self.has_result
    }

    /// Sets the link on which a mapping is wanted. A mapping on another link is removed.
    pub fn set_link(&mut self, link: Option<GatewayLink>) {
        if link == self.link {
            return;
        }
        let port = self.link.map(|link| link.local.port());
        self.link = link;
        self.schedule = Schedule::default();
        self.has_result = false;
        self.external = None;
        self.told.clear();
        if let Some(task) = self.task.take() {
            task.abort();
        }
        let old = self.gateway.take().zip(port);
        let record = self.record.clone();
        self.task = Some(tokio::spawn(async move {
            if let Some((gateway, port)) = old {
                remove(&gateway, port, &record).await;
            }
            Some(ask(link?, None, &record).await)
        }));
    }

    /// Asks the gateway again soon, because it may have changed: the client has qualified.
    pub fn renew(&mut self) {
        self.schedule.hasten(clock::now());
    }

    /// Waits until the gateway has answered or failed to. Cancelling loses nothing.
    pub async fn answered(&mut self) {
        loop {
            let is_idle = self.task.is_none();
            self.timer.set(self.schedule.due().filter(|_| is_idle));
            tokio::select! {
                attempt = completed(self.task.as_mut()) => {
                    self.task = None;
                    self.has_result = true;
                    // A task that has failed is no answer either.
                    if let (Some(_), attempt) = (self.link, attempt.unwrap_or_default()) {
                        self.apply(attempt);
                    }
                    return;
                }
                () = self.timer.expired() => self.ask_again(),
            }
        }
    }

    fn ask_again(&mut self) {
        let Some(link) = self.link else { return };
        let (known, record) = (self.gateway.clone(), self.record.clone());
        let task = async move { Some(ask(link, known, &record).await) };
        self.task = Some(tokio::spawn(task));
    }

    fn apply(&mut self, attempt: Option<Attempt>) {
        let now = clock::now();
        let Some(attempt) = attempt else {
            return self.schedule.unanswered(now);
        };
        self.external = match attempt.answer {
            Answer::Forwards(external) => Some(external),
            Answer::Refuses | Answer::None => None,
        };
        self.gateway = attempt.gateway;
        if attempt.answer == Answer::None {
            self.schedule.unanswered(now);
        } else {
            self.schedule.answered(now);
        }
        if attempt.text != self.told {
            tracing::info!("{}", attempt.text);
            self.told = attempt.text;
        }
    }

    /// Removes the mapping.
    pub async fn stop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
            // A mapping that it may have made is in the record.
            if let Ok(Some(attempt)) = task.await {
                self.gateway = attempt.gateway;
            }
        }
        if let (Some(link), Some(gateway)) = (self.link.take(), self.gateway.take()) {
            remove(&gateway, link.local.port(), &self.record).await;
        }
    }
}

/// Waits for a task; forever without one.
async fn completed(
    task: Option<&mut JoinHandle<Option<Attempt>>>,
) -> Result<Option<Attempt>, JoinError> {
    match task {
        Some(task) => task.await,
        None => pending().await,
    }
}

/// Asks the known gateway, or searches for it if it does not answer. Then a mapping that a crash
/// left is removed first.
async fn ask(link: GatewayLink, known: Option<Gateway<Tokio>>, record: &Record) -> Attempt {
    if let Some(gateway) = &known {
        let attempt = forward(gateway, link, record).await;
        if attempt.answer != Answer::None {
            return attempt;
        }
    }
    let Some(gateway) = search::search(link).await else {
        let text = format!(
            "the gateway {} answers no search for UPnP; the client tries again",
            link.gateway
        );
        return Attempt {
            gateway: known,
            answer: Answer::None,
            text,
        };
    };
    let left = record
        .read()
        .filter(|left| known.is_none() && left.is_of(link.gateway, &device(&gateway)));
    if let Some(left) = left {
        remove(&gateway, left.port, record).await;
    }
    forward(&gateway, link, record).await
}

/// Requests the mapping and asks for the gateway's external address.
async fn forward(gateway: &Gateway<Tokio>, link: GatewayLink, record: &Record) -> Attempt {
    let port = link.local.port();
    record.write(&Recorded {
        gateway: link.gateway,
        device: device(gateway),
        port,
    });
    let local = SocketAddr::V4(link.local);
    let added = gateway.add_port(PortMappingProtocol::UDP, port, local, 0, DESCRIPTION);
    let address = match within(added).await {
        Ok(()) => within(gateway.get_external_ip()).await,
        Err(failure) => {
            let (is_answer, gateway) = (failure.is_answer, gateway.clone());
            if is_answer {
                record.clear();
            }
            return Attempt {
                // Without an answer it may have made the mapping.
                gateway: (!is_answer).then_some(gateway),
                answer: failure.answer(),
                text: format!("the gateway {} forwards no port: {failure}", link.gateway),
            };
        }
    };
    match address {
        Ok(IpAddr::V4(address)) if !address.is_unspecified() => {
            let external = SocketAddrV4::new(address, port);
            Attempt {
                gateway: Some(gateway.clone()),
                answer: Answer::Forwards(external),
                text: describe(link.gateway, external),
            }
        }
        unusable => {
            let (answer, reason) = match unusable {
                Ok(address) => (Answer::Refuses, format!("{address} is not reachable")),
                Err(failure) => (failure.answer(), failure.to_string()),
            };
            let is_removed = remove(gateway, port, record).await;
            Attempt {
                gateway: (!is_removed).then(|| gateway.clone()),
                answer,
                text: format!(
                    "the gateway {} reports no usable external address: {reason}",
                    link.gateway
                ),
            }
        }
    }
}

/// Describes a mapping for the log.
fn describe(gateway: Ipv4Addr, external: SocketAddrV4) -> String {
    let hint = if Ipv4Scope::Strict.accepts(external.ip().octets()) {
        ""
    } else {
        ", which is not a public address: there is another NAT behind the gateway, of the provider \
         or of a second router, so the port is not reachable from the internet"
    };
    format!("the gateway {gateway} forwards {external} to this host{hint}")
}

/// Returns the name of the device behind an address that many gateways have: its hardware address, or
/// the location of its description.
fn device(gateway: &Gateway<Tokio>) -> String {
    let hardware = match gateway.addr.ip() {
        IpAddr::V4(address) => hardware_address(address),
        IpAddr::V6(_) => None,
    };
    hardware.unwrap_or_else(|| format!("http://{}{}", gateway.addr, gateway.root_url))
}

/// Removes a mapping and its record, and returns whether that succeeded.
async fn remove(gateway: &Gateway<Tokio>, port: u16, record: &Record) -> bool {
    let removed = gateway.remove_port(PortMappingProtocol::UDP, port);
    let failure = match timeout(ANSWER_TIMEOUT, removed).await {
        Ok(Ok(())) => {
            record.clear();
            return true;
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => "no answer".to_owned(),
    };
    tracing::debug!("cannot remove the mapping of UDP port {port}: {failure}");
    false
}

/// A request that failed.
#[derive(Debug)]
struct Failure {
    /// Whether the gateway has answered.
    is_answer: bool,
    text: String,
}

impl Failure {
    const fn answer(&self) -> Answer {
        if self.is_answer {
            Answer::Refuses
        } else {
            Answer::None
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl From<AddPortError> for Failure {
    fn from(error: AddPortError) -> Self {
        let text = error.to_string();
        let is_answer = match &error {
            AddPortError::RequestError(error) => is_answer(error),
            _ => true,
        };
        Self { is_answer, text }
    }
}

impl From<GetExternalIpError> for Failure {
    fn from(error: GetExternalIpError) -> Self {
        let text = error.to_string();
        let is_answer = match &error {
            GetExternalIpError::RequestError(error) => is_answer(error),
            GetExternalIpError::ActionNotAuthorized => true,
        };
        Self { is_answer, text }
    }
}

/// Returns whether the error is what the gateway said, rather than silence or noise.
const fn is_answer(error: &RequestError) -> bool {
    matches!(
        error,
        RequestError::ErrorCode(..) | RequestError::UnsupportedAction(_)
    )
}

/// Waits for the answer of a gateway, with a timeout.
async fn within<T, E: Into<Failure>>(
    request: impl Future<Output = Result<T, E>>,
) -> Result<T, Failure> {
    match timeout(ANSWER_TIMEOUT, request).await {
        Ok(result) => result.map_err(Into::into),
        Err(_) => Err(Failure {
            is_answer: false,
            text: format!("no answer within {} s", ANSWER_TIMEOUT.as_secs()),
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn x22_silence_is_no_refusal() {
        let silence = RequestError::IoError(io::ErrorKind::TimedOut.into());
        assert!(!Failure::from(AddPortError::RequestError(silence)).is_answer);
        let noise = RequestError::InvalidResponse("<html>".to_owned());
        assert!(!Failure::from(AddPortError::RequestError(noise)).is_answer);
        let refusal = RequestError::ErrorCode(501, "failed".to_owned());
        assert!(Failure::from(AddPortError::RequestError(refusal)).is_answer);
        assert!(Failure::from(AddPortError::PortInUse).is_answer);
    }

    #[test]
    fn x20_an_address_behind_another_nat_is_told() {
        let told = |external: &str| describe(Ipv4Addr::LOCALHOST, external.parse().unwrap());
        for nested in ["10.0.0.5:3797", "100.64.3.4:3797", "192.168.0.7:3797"] {
            assert!(told(nested).contains("not a public address"), "{nested}");
        }
        assert!(!told("8.8.8.8:3797").contains("not a public"));
    }
}
