//! The selection of packets that an operator captures.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddrV4},
    num::NonZeroU64,
    str::FromStr,
    time::Duration,
};

use ipnet::IpNet;
use serde::Deserialize;
use teredo_common::capture::{Condition, Filter, SNAPLEN_MAX, point};
use thiserror::Error;

use super::reason::Reason;
use crate::metrics::Role;

/// Packets a second unless the query says another number.
const RATE: u32 = 1_000;
/// Most packets a second.
const RATE_MAX: u32 = 100_000;
/// The part of a second's packets that may come at once.
const BURST: u64 = 10;
/// Octets of each packet unless the query says another number.
const SNAPLEN: u32 = 256;
/// The first 32 bits of Teredo addresses.
const TEREDO: u32 = 0x2001_0000;

/// The points by their names.
const POINTS: [(&str, u32); 5] = [
    ("received", point::RECEIVED),
    ("passed", point::PASSED),
    ("dropped", point::DROPPED),
    ("forwarded", point::FORWARDED),
    ("sent", point::SENT),
];
/// The points that the XDP program has.
const OF_XDP: u32 = point::RECEIVED | point::PASSED | point::DROPPED | point::FORWARDED;
/// The points that the daemon has.
const OF_DAEMON: u32 = point::RECEIVED | point::DROPPED | point::FORWARDED | point::SENT;

/// The parameters of a request, as they are written.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Query {
    /// Points, with commas.
    pub points: Option<String>,
    /// Reasons, with commas.
    pub reason: Option<String>,
    /// A Teredo address, an IPv6 address, or an IPv4 endpoint.
    pub peer: Option<String>,
    /// A network.
    pub prefix: Option<String>,
    /// A role.
    pub role: Option<String>,
    /// One packet of so many.
    pub sample: Option<u32>,
    /// Packets a second.
    pub rate: Option<u32>,
    /// Octets of each packet.
    pub snaplen: Option<u32>,
    /// The number of packets after which the capture ends.
    pub count: Option<u64>,
    /// The seconds after which it ends.
    pub duration: Option<u32>,
}

/// The packets to capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// The points at the XDP program, each a bit.
    pub xdp: u32,
    /// The points at the daemon, each a bit.
    pub daemon: u32,
    /// The reasons, if not all.
    pub reasons: Option<Vec<Reason>>,
    /// The role, if not all.
    pub role: Option<Role>,
    /// The filter, of which the points and verdicts are those at the XDP program.
    pub filter: Filter,
    /// The number of packets after which the capture ends.
    pub count: Option<NonZeroU64>,
    /// The time after which it ends.
    pub duration: Option<Duration>,
}

/// A parameter that is not valid.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SelectionError {
    /// No such point.
    #[error(
        "there is no point \"{0}\": it must be received, passed, dropped, forwarded or sent, perhaps with xdp: or \
         daemon: in front, or one of these alone"
    )]
    Point(String),
    /// No such reason.
    #[error(
        "there is no reason \"{0}\": `teredo status --json` lists them under dropped and passed, and forwarded, handled and \
         sent are others"
    )]
    Reason(String),
    /// Not a peer.
    #[error(
        "\"{0}\" is no peer: it must be an IPv6 address, or an IPv4 address with or without a port"
    )]
    Peer(String),
    /// Not a network.
    #[error("\"{0}\" is no prefix: it must be a network such as 2001:db8::/32 or 192.0.2.0/24")]
    Prefix(String),
    /// Not a role.
    #[error("there is no role \"{0}\": it must be relay, server or client")]
    Role(String),
    /// A number outside of its range.
    #[error("{name} = {value} is not possible: it must be from 1 to {most}")]
    Range {
        /// The parameter.
        name: &'static str,
        /// Its value.
        value: u32,
        /// The greatest value.
        most: u32,
    },
    /// A number that may not be zero.
    #[error("{0} = 0 is not possible: it must be at least 1")]
    Zero(&'static str),
    /// Nothing can be captured.
    #[error("no packet has this role, reason and point")]
    Nothing,
}

impl Query {
    /// Reads the parameters.
    ///
    /// # Errors
    ///
    /// The first that is not valid.
    pub fn selection(&self) -> Result<Selection, SelectionError> {
        let (xdp, daemon) = points(self.points.as_deref())?;
        let reasons = self.reason.as_deref().map(reasons).transpose()?;
        let role = self.role.as_deref().map(role).transpose()?;
        let rate = within("rate", self.rate, RATE, RATE_MAX)?;
        let interval = 1_000_000_000 / u64::from(rate);
        let peer = self.peer.as_deref().map(peer).transpose()?;
        let prefix = self.prefix.as_deref().map(prefix).transpose()?;
        // Nothing is looked at for packets that there cannot be.
        let possible = possible(reasons.as_deref(), role);
        let verdicts = verdicts(&possible);
        let has_verdicts = verdicts.iter().any(|&word| word != 0);
        let xdp = if has_verdicts { xdp } else { 0 };
        let daemon = daemon & (possible.iter()).fold(0, |points, one| points | one.points());
        if xdp | daemon == 0 {
            return Err(SelectionError::Nothing);
        }
        Ok(Selection {
            xdp,
            daemon,
            reasons,
            role,
            filter: Filter {
                interval,
                tolerance: interval * (u64::from(rate) / BURST).max(1),
                verdicts,
                points: xdp,
                sample: not_zero("sample", self.sample)?.unwrap_or(1),
                snaplen: within("snaplen", self.snaplen, SNAPLEN, SNAPLEN_MAX)?,
                conditions: [peer.unwrap_or_default(), prefix.unwrap_or_default()],
                teredo: TEREDO,
            },
            count: not_zero("count", self.count)?.and_then(NonZeroU64::new),
            duration: not_zero("duration", self.duration)?
                .map(|seconds| Duration::from_secs(seconds.into())),
        })
    }
}

impl Selection {
    /// Whether packets of the daemon with this role, at this point, and for this reason are wanted.
    #[must_use]
    pub fn takes(&self, role: Role, point: u32, reason: Reason) -> bool {
        self.daemon & point != 0
            && self.role.is_none_or(|one| one == role)
            && (self.reasons.as_ref()).is_none_or(|reasons| reasons.contains(&reason))
    }
}

fn within(
    name: &'static str,
    value: Option<u32>,
    default: u32,
    most: u32,
) -> Result<u32, SelectionError> {
    let value = value.unwrap_or(default);
    match (1..=most).contains(&value) {
        true => Ok(value),
        false => Err(SelectionError::Range { name, value, most }),
    }
}

fn not_zero<N: Default + PartialEq>(
    name: &'static str,
    value: Option<N>,
) -> Result<Option<N>, SelectionError> {
    match value {
        Some(value) if value == N::default() => Err(SelectionError::Zero(name)),
        value => Ok(value),
    }
}

fn points(text: Option<&str>) -> Result<(u32, u32), SelectionError> {
    let (mut xdp, mut daemon) = (0, 0);
    for word in text.unwrap_or("xdp,daemon").split(',') {
        let unknown = || SelectionError::Point(word.to_owned());
        let named = |name| {
            let found = POINTS.iter().find(|(one, _)| *one == name);
            found.map(|&(_, bit)| bit).ok_or_else(unknown)
        };
        let (of_xdp, of_daemon) = match word.split_once(':') {
            _ if word == "xdp" => (OF_XDP, 0),
            _ if word == "daemon" => (0, OF_DAEMON),
            Some(("xdp", name)) => (named(name)?, 0),
            Some(("daemon", name)) => (0, named(name)?),
            Some(_) => return Err(unknown()),
            None => (named(word)?, named(word)?),
        };
        if (of_xdp & OF_XDP) | (of_daemon & OF_DAEMON) == 0 {
            return Err(unknown());
        }
        xdp |= of_xdp & OF_XDP;
        daemon |= of_daemon & OF_DAEMON;
    }
    Ok((xdp, daemon))
}

/// Returns the reasons with these names.
fn reasons(text: &str) -> Result<Vec<Reason>, SelectionError> {
    let mut reasons = Vec::new();
    for word in text.split(',') {
        let known = reasons.len();
        reasons.extend(Reason::all().filter(|one| one.name() == word));
        if reasons.len() == known {
            return Err(SelectionError::Reason(word.to_owned()));
        }
    }
    Ok(reasons)
}

fn role(word: &str) -> Result<Role, SelectionError> {
    Role::of_name(word).ok_or_else(|| SelectionError::Role(word.to_owned()))
}

fn peer(text: &str) -> Result<Condition, SelectionError> {
    if let Ok(address) = IpAddr::from_str(text) {
        return Ok(condition(IpNet::from(address)));
    }
    let endpoint = SocketAddrV4::from_str(text);
    let endpoint = endpoint.map_err(|_| SelectionError::Peer(text.to_owned()))?;
    Ok(Condition {
        port: endpoint.port().into(),
        ..condition(IpNet::from(IpAddr::V4(*endpoint.ip())))
    })
}

fn prefix(text: &str) -> Result<Condition, SelectionError> {
    let network = IpNet::from_str(text).map_err(|_| SelectionError::Prefix(text.to_owned()))?;
    Ok(condition(network))
}

fn condition(network: IpNet) -> Condition {
    let words = |address: Ipv6Addr| {
        let bits = address.to_bits();
        [96, 64, 32, 0].map(|shift| (bits >> shift) as u32)
    };
    match network {
        IpNet::V4(network) => Condition {
            kind: Condition::IPV4,
            port: 0,
            address: [network.addr().to_bits(), 0, 0, 0],
            mask: [network.netmask().to_bits(), 0, 0, 0],
        },
        IpNet::V6(network) => Condition {
            kind: Condition::IPV6,
            port: 0,
            address: words(network.addr()),
            mask: words(network.netmask()),
        },
    }
}

/// Returns the reasons that packets of this role, or of any, can have: these, or all.
fn possible(reasons: Option<&[Reason]>, role: Option<Role>) -> Vec<Reason> {
    let reasons = match reasons {
        Some(reasons) => reasons.to_vec(),
        None => Reason::all().collect(),
    };
    let of_role = |one: &Reason| role.is_none_or(|role| one.is_of(role));
    reasons.into_iter().filter(of_role).collect()
}

/// Returns the verdicts of the XDP program among these reasons, each a bit.
fn verdicts(reasons: &[Reason]) -> [u32; 4] {
    let mut words = [0; 4];
    for reason in reasons {
        if let Reason::Verdict(verdict) = *reason {
            words[verdict as usize / 32] |= 1 << (verdict as usize % 32);
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use teredo_common::verdict::Verdict;
    use teredo_proto::relay;

    use super::*;

    fn query(set: impl FnOnce(&mut Query)) -> Result<Selection, SelectionError> {
        let mut query = Query::default();
        set(&mut query);
        query.selection()
    }

    #[test]
    fn without_parameters_everything_is_captured() {
        let all = query(|_| {}).unwrap();
        assert_eq!((all.xdp, all.daemon), (15, 29));
        assert_eq!((all.filter.sample, all.filter.snaplen), (1, 256));
        for &verdict in Verdict::ALL {
            assert!(all.filter.takes_verdict(verdict as u32));
        }
        assert!(all.takes(Role::Client, point::SENT, Reason::Sent));
    }

    #[test]
    fn points_are_those_of_both_or_of_one() {
        let points = |text: &str| {
            let selection = query(|query| query.points = Some(text.to_owned()))?;
            Ok::<_, SelectionError>((selection.xdp, selection.daemon))
        };
        assert_eq!(points("dropped").unwrap(), (4, 4));
        assert_eq!(points("xdp:dropped,daemon:sent").unwrap(), (4, 16));
        assert_eq!(points("passed").unwrap(), (2, 0));
        assert_eq!(points("daemon").unwrap(), (0, 29));
        for text in [
            "",
            "lost",
            "xdp:sent",
            "daemon:passed",
            "a:dropped",
            "dropped,",
        ] {
            assert!(points(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_reason_and_a_role_select_verdicts() {
        let one = query(|query| query.reason = Some("decap-unknown-peer".to_owned())).unwrap();
        for &verdict in Verdict::ALL {
            let is_taken = one.filter.takes_verdict(verdict as u32);
            assert_eq!(is_taken, verdict == Verdict::DecapUnknownPeer);
        }
        let takes =
            |reason: relay::DropReason| one.takes(Role::Relay, point::DROPPED, reason.into());
        assert!(takes(relay::DropReason::DecapUnknownPeer));
        assert!(!takes(relay::DropReason::DecapMapping));
        let server = query(|query| query.role = Some("server".to_owned())).unwrap();
        assert!(
            server
                .filter
                .takes_verdict(Verdict::RespondAdvertised as u32)
        );
        assert!(!server.filter.takes_verdict(Verdict::DecapMapping as u32));
        assert!(!server.takes(Role::Relay, point::SENT, Reason::Sent));
    }

    #[test]
    fn every_reason_of_every_tap_can_be_selected() {
        for reason in Reason::all() {
            let one = query(|query| query.reason = Some(reason.name().to_owned())).unwrap();
            if let Reason::Verdict(verdict) = reason {
                assert!(one.xdp != 0 && one.filter.takes_verdict(verdict as u32));
            }
            for role in Role::ALL.into_iter().filter(|&role| reason.is_of(role)) {
                for (_, point) in POINTS {
                    let is_there = reason.points() & point != 0;
                    assert!(one.takes(role, point, reason) || !is_there, "{reason:?}");
                }
            }
        }
        let several = query(|query| query.reason = Some("sent,handled".to_owned())).unwrap();
        assert_eq!(
            (several.xdp, several.daemon),
            (0, point::SENT | point::RECEIVED)
        );
    }

    #[test]
    fn packets_that_there_cannot_be_are_refused() {
        for (role, points, reason) in [
            ("client", "xdp", None),
            ("client", "xdp,daemon", Some("decap-unknown-peer")),
            ("relay", "daemon", Some("bubble-forwarded")),
            ("relay", "daemon:sent", Some("decap-malformed")),
            ("server", "dropped", Some("sent,handled")),
        ] {
            let nothing = query(|query| {
                query.role = Some(role.to_owned());
                query.points = Some(points.to_owned());
                query.reason = reason.map(str::to_owned);
            });
            assert_eq!(
                nothing,
                Err(SelectionError::Nothing),
                "{role} {points} {reason:?}"
            );
        }
    }

    #[test]
    fn addresses_become_conditions() {
        let conditions = |peer: &str, prefix: &str| {
            let selection = query(|query| {
                query.peer = Some(peer.to_owned());
                query.prefix = Some(prefix.to_owned());
            });
            selection.unwrap().filter.conditions
        };
        let [peer, prefix] = conditions("192.0.2.1:99", "2001:db8::/33");
        assert_eq!((peer.kind, peer.port), (Condition::IPV4, 99));
        assert_eq!((peer.address[0], peer.mask[0]), (0xc000_0201, u32::MAX));
        assert_eq!((prefix.kind, prefix.port), (Condition::IPV6, 0));
        assert_eq!(prefix.address, [0x2001_0db8, 0, 0, 0]);
        assert_eq!(prefix.mask, [u32::MAX, 1 << 31, 0, 0]);
        for text in ["", "x", "1.2.3", "2001::1:", "[2001::1]:5"] {
            assert!(
                query(|query| query.peer = Some(text.to_owned())).is_err(),
                "{text}"
            );
        }
    }

    #[test]
    fn numbers_have_bounds() {
        for value in [0, RATE_MAX + 1] {
            assert!(query(|query| query.rate = Some(value)).is_err());
        }
        for value in [0, SNAPLEN_MAX + 1] {
            assert!(query(|query| query.snaplen = Some(value)).is_err());
        }
        let zeros: [fn(&mut Query); 3] = [
            |query| query.sample = Some(0),
            |query| query.count = Some(0),
            |query| query.duration = Some(0),
        ];
        for (set, name) in zeros.into_iter().zip(["sample", "count", "duration"]) {
            assert_eq!(query(set), Err(SelectionError::Zero(name)));
        }
        let error = query(|query| query.rate = Some(0)).unwrap_err();
        let text = "rate = 0 is not possible: it must be from 1 to 100000";
        assert_eq!(error.to_string(), text);
    }
}
