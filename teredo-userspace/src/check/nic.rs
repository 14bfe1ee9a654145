//! Offloads, queues and rings of the network cards of the fast path, as ethtool shows them.

use std::{fs, io};

use super::Report;
use crate::datapath::ethtool::Ethtool;

/// Offloads of [`Ethtool::flags`].
const RX_VLAN: u32 = 1 << 8;
const LRO: u32 = 1 << 15;
/// Both ports in [`Ethtool::hashed_fields`].
const PORTS: u64 = 1 << 6 | 1 << 7;
/// Receive descriptors with which a burst is not lost.
const RING: u32 = 1024;

/// The facts about a card; `None` if its driver does not report them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Facts {
    /// Offloads.
    flags: Option<u32>,
    /// Receive descriptors in use, and their maximum.
    ring: Option<(u32, u32)>,
    /// The fields of UDP over IPv4 that choose the receive queue.
    hash: Option<u64>,
    queues: usize,
}

/// Examines the interfaces that the fast path would be attached to in their drivers.
pub fn examine(report: &mut Report) {
    for attachment in report.xdp.clone() {
        if attachment.mode == crate::metrics::Mode::Off {
            continue;
        }
        let name = &attachment.interface;
        let Ok(facts) = read(name) else { continue };
        for (is_defect, text) in judge(name, facts) {
            if is_defect {
                report.degraded("nic", text);
            } else {
                report.note("nic", text);
            }
        }
    }
}

fn judge(name: &str, facts: Facts) -> Vec<(bool, String)> {
    let mut findings = Vec::new();
    let has = |flag| facts.flags.is_some_and(|flags| flags & flag != 0);
    if has(LRO) {
        findings.push((
            true,
            format!(
                "LRO of {name} joins packets that XDP must see one by one: `ethtool -K {name} lro off \
                 gro-hw off`"
            ),
        ));
    }
    if has(RX_VLAN) {
        findings.push((
            false,
            format!(
                "{name} takes VLAN tags out of frames, where XDP does not see them: the daemon does \
                 `ethtool -K {name} rxvlan off` where that helps, and else takes the program off when \
                 tagged frames arrive"
            ),
        ));
    }
    if let Some((now, max)) = facts.ring
        && now < RING.min(max)
    {
        findings.push((
            false,
            format!(
                "the receive ring of {name} has {now} of {max} descriptors, so bursts are lost: `ethtool \
                 -G {name} rx {}`",
                max.min(4 * RING)
            ),
        ));
    }
    if facts.queues > 1 && facts.hash.is_some_and(|fields| fields & PORTS != PORTS) {
        findings.push((
            false,
            format!(
                "{name} chooses receive queues without UDP ports, so the packets of one NAT share a CPU: \
                 `ethtool -N {name} rx-flow-hash udp4 sdfn`"
            ),
        ));
    }
    findings
}

fn read(name: &str) -> io::Result<Facts> {
    let ethtool = Ethtool::open()?;
    let queues = fs::read_dir(format!("/sys/class/net/{name}/queues"));
    let queues = queues.into_iter().flatten().flatten();
    let queues = queues.filter(|queue| queue.file_name().to_string_lossy().starts_with("rx-"));
    Ok(Facts {
        flags: ethtool.flags(name).ok(),
        ring: ethtool.receive_ring(name).ok(),
        hash: ethtool.hashed_fields(name).ok(),
        queues: queues.count(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_that_suits_is_silent() {
        let good = Facts {
            flags: Some(0),
            ring: Some((1024, 4096)),
            hash: Some(PORTS | 1 << 4 | 1 << 5),
            queues: 8,
        };
        assert!(judge("eth0", good).is_empty());
        assert!(
            judge("eth0", Facts::default()).is_empty(),
            "nothing is known"
        );
    }

    #[test]
    fn offloads_rings_and_hashes_are_told_with_the_command() {
        let bad = Facts {
            flags: Some(LRO | RX_VLAN),
            ring: Some((256, 8192)),
            hash: Some(1 << 4 | 1 << 5),
            queues: 8,
        };
        let findings = judge("eth0", bad);
        for (index, (is_defect, command)) in [
            (true, "ethtool -K eth0 lro off"),
            (false, "ethtool -K eth0 rxvlan off"),
            (false, "ethtool -G eth0 rx 4096"),
            (false, "ethtool -N eth0 rx-flow-hash udp4 sdfn"),
        ]
        .iter()
        .enumerate()
        {
            let (found, text) = &findings[index];
            assert!(found == is_defect && text.contains(command), "{text}");
        }
        let one_queue = Facts { queues: 1, ..bad };
        assert_eq!(judge("eth0", one_queue).len(), 3);
        // A small ring that cannot be larger is no finding.
        let small = Facts {
            ring: Some((256, 256)),
            ..Facts::default()
        };
        assert!(judge("eth0", small).is_empty());
    }

    #[test]
    fn the_loopback_interface_can_be_asked() {
        // It has no rings, and its driver tells no hash.
        let facts = read("lo").unwrap();
        assert_eq!(facts.ring, None);
    }
}
