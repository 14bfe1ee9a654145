//! Routes, neighbours, conditions and limits.

use std::net::IpAddr;

use crate::{
    condition::Severity,
    explain::{Explanation, Facts, HostFacts, Stage, Step, host::WayKind},
    metrics::Role,
};

/// Octets of the outer headers: IPv4 and UDP.
pub const OUTER: u32 = 28;
/// The share of a limit from which on it is near its end, in percent.
const NEAR: u64 = 80;

/// Explains the way to a destination, for packets of up to `size` octets.
pub fn way(explanation: &mut Explanation, host: &HostFacts, destination: IpAddr, size: u32) {
    let Some(found) = host.found(destination) else {
        return;
    };
    let step = match found {
        Err(reason) => no_route(destination, reason),
        Ok(way) if way.kind == WayKind::Refused => {
            no_route(destination, "a route or rule refuses it")
        }
        Ok(way) if way.kind == WayKind::Local => Step::note(
            Stage::Host,
            format!("{destination} is an address of this host"),
        ),
        Ok(way) if way.is_silent => {
            let next = way.gateway.unwrap_or(destination);
            let protocol = if next.is_ipv4() {
                "ARP"
            } else {
                "neighbour solicitations"
            };
            let text = format!(
                "{next} does not answer {protocol} on {}, so that nothing reaches {destination}: is it up, \
                 and is its address right? (`ip neigh show {next}`)",
                way.name
            );
            Step::fault(Stage::Host, text)
        }
        Ok(way) if way.mtu < size && way.is_limited_by_route => {
            let family = family(destination);
            let text = format!(
                "the path to {destination} has an MTU of {}, by its route or as routers on it have said, and \
                 full packets of the tunnel need {size}: they are lost or leave in fragments, which many \
                 NATs drop; see `ip {family} route get {destination}`",
                way.mtu
            );
            Step::fault(Stage::Host, text)
        }
        Ok(way) if way.mtu < size => {
            let text = format!(
                "the MTU of {} is {}, and full packets of the tunnel need {size}: they are lost or leave \
                 in fragments, which many NATs drop; `ip link set {} mtu {size}`",
                way.name, way.mtu, way.name
            );
            Step::fault(Stage::Host, text)
        }
        Ok(way) => {
            let gateway = match way.gateway {
                Some(gateway) => format!(" via {gateway}"),
                None => String::new(),
            };
            let text = format!(
                "{destination} is reached through {}{gateway}, MTU {}",
                way.name, way.mtu
            );
            Step::fine(Stage::Host, text)
        }
    };
    if !explanation.steps.contains(&step) {
        explanation.add(step);
    }
}

fn no_route(destination: IpAddr, reason: &str) -> Step {
    let family = family(destination);
    let text = format!(
        "this host has no route to {destination} ({reason}): add one, see `ip {family} route get \
         {destination}`"
    );
    Step::fault(Stage::Host, text)
}

/// Returns the option of `ip` for the family of an address.
const fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "-4" } else { "-6" }
}

/// Explains the conditions of a role that are true.
pub fn conditions(explanation: &mut Explanation, facts: &Facts, role: Role) {
    let name = role.name();
    let conditions = facts.status.conditions.iter();
    for condition in conditions.filter(|condition| condition.role == name) {
        let step = match condition.severity {
            Severity::Down => Step::fault(
                Stage::Host,
                format!("the {name} does not do its job: {}", condition.text),
            ),
            Severity::Degraded => Step::note(Stage::Host, condition.text.clone()),
        };
        explanation.add(step.because(&condition.kind));
    }
}

/// Explains the limits of the peers and their queues that are near their ends.
pub fn limits(explanation: &mut Explanation, facts: &Facts, queued: [u64; 2]) {
    let peers = facts.status.peers;
    let before = explanation.steps.len();
    for (used, most, text, key) in [
        (
            peers.trusted + peers.untrusted,
            peers.maximum,
            "peers of at most",
            "max-peers",
        ),
        (
            peers.untrusted,
            peers.maximum / 8,
            "peers without an answer yet of at most",
            "max-peers",
        ),
        (
            queued[0],
            queued[1],
            "octets that wait of at most",
            "queue-total-bytes",
        ),
    ] {
        if most > 0 && used * 100 >= most * NEAR {
            let text = format!("{used} {text} {most}: newer ones displace others; raise {key}");
            explanation.add(Step::note(Stage::Limits, text));
        }
    }
    let is_limited = |step: &Step| step.stage == Stage::Limits;
    if explanation.steps.len() == before && !explanation.steps.iter().any(is_limited) {
        let text = "the table of peers and the queues have room";
        explanation.add(Step::fine(Stage::Limits, text));
    }
}
