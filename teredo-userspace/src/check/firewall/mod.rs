//! The firewall of this host: whether its rules drop the packets of the roles.

mod iptables;
mod nftables;
mod rules;

use std::{
    fs,
    net::IpAddr,
    path::Path,
    process::{Command, Stdio},
};

use teredo_common::wire::SERVER_PORT;

use super::{Host, Report};
use crate::config::Config;
use rules::{Fate, Hook, Packet, Table, judge};

/// The directories of programs of the operator.
const DIRECTORIES: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/usr/local/sbin"];
/// The tables of the older iptables that are in use.
const LEGACY_TABLES: &str = "/proc/net/ip_tables_names";
const LEGACY_TABLES_IPV6: &str = "/proc/net/ip6_tables_names";

/// Packets of a role that must pass.
#[derive(Clone, Debug)]
struct Need {
    /// The packets, for messages.
    name: String,
    packet: Packet,
    /// The condition of the rule that lets them pass, for nft and for iptables.
    nft: String,
    iptables: String,
}

/// The firewall's rules as text.
#[derive(Clone, Debug, Default)]
struct Rules {
    nftables: Option<String>,
    /// Of the older iptables, for IPv4 and IPv6.
    iptables: [Option<String>; 2],
}

/// Examines whether the firewall drops packets of the roles.
pub fn examine(host: &Host<'_>, report: &mut Report) {
    let rules = Rules::read();
    if rules.nftables.is_none() && rules.iptables.iter().all(Option::is_none) {
        return;
    }
    let needs = needs(host.config);
    let mut is_fine = true;
    for need in &needs {
        let Some((fate, text)) = rules.verdict(need) else {
            continue;
        };
        is_fine = false;
        match fate {
            Fate::Dropped => report.degraded("firewall", text),
            Fate::PerhapsDropped | Fate::Passed => report.note("firewall", text),
        }
    }
    if is_fine && !needs.is_empty() {
        report.fine("firewall", "no rule of this host drops the packets");
    }
}

/// Returns a sentence for each kind of packets of the roles that the rules of this host drop, and whether
/// they do so in any case.
pub fn findings(config: &Config) -> Vec<(bool, String)> {
    let rules = Rules::read();
    let needs = needs(config);
    let verdicts = needs.iter().filter_map(|need| rules.verdict(need));
    verdicts
        .map(|(fate, text)| (fate == Fate::Dropped, text))
        .collect()
}

/// Lists the packets that the roles need.
fn needs(config: &Config) -> Vec<Need> {
    let mut needs = Vec::new();
    if let Some(relay) = &config.relay {
        needs.push(Need::input("relay", relay.port));
        needs.push(Need::output("relay", relay.port, None));
        if !relay.host_specific {
            let prefix = config.node.prefix.to_string();
            let address = crate::config::network(config.node.prefix).addr().into();
            needs.extend(Need::forward(&prefix, address, &relay.tun));
        }
    }
    if let Some(server) = &config.server {
        needs.push(Need::input("server", server.port));
        needs.push(Need::output("server", server.port, None));
    }
    if let Some(client) = &config.client {
        let port = (client.port != 0).then_some(client.port);
        needs.push(Need::answers(port));
        needs.push(Need::output("client", client.port, Some(SERVER_PORT)));
    }
    needs
}

impl Need {
    fn datagrams(hook: Hook, name: String) -> Self {
        Self {
            name,
            packet: Packet::datagrams(hook),
            nft: String::new(),
            iptables: String::new(),
        }
    }

    fn input(role: &str, port: u16) -> Self {
        let mut need = Self::datagrams(Hook::Input, format!("UDP to port {port} of the {role}"));
        need.packet.destination_port = Some(port);
        need.nft = format!("udp dport {port}");
        need.iptables = format!("-p udp --dport {port}");
        need
    }

    /// Answers to a client, whose port may be any.
    fn answers(port: Option<u16>) -> Self {
        let name = "answers to the client's UDP".to_owned();
        let mut need = Self::datagrams(Hook::Input, name);
        need.packet.destination_port = port;
        need.packet.is_established = true;
        need.nft = "ct state established,related".to_owned();
        need.iptables = "-m conntrack --ctstate ESTABLISHED,RELATED".to_owned();
        need
    }

    fn output(role: &str, port: u16, to: Option<u16>) -> Self {
        let name = match to {
            Some(to) => format!("UDP of the {role} to port {to}"),
            None => format!("UDP from port {port} of the {role}"),
        };
        let mut need = Self::datagrams(Hook::Output, name);
        need.packet.source_port = (port != 0).then_some(port);
        need.packet.destination_port = to;
        (need.nft, need.iptables) = match to {
            Some(to) => (format!("udp dport {to}"), format!("-p udp --dport {to}")),
            None => (
                format!("udp sport {port}"),
                format!("-p udp --sport {port}"),
            ),
        };
        need
    }

    /// Packets between the tunnel and native IPv6, in both directions.
    fn forward(prefix: &str, address: IpAddr, tun: &str) -> [Self; 2] {
        [true, false].map(|is_to_clients| {
            let name = if is_to_clients {
                format!("forwarding of IPv6 to {prefix}")
            } else {
                format!("forwarding of IPv6 from {prefix}")
            };
            let mut need = Self::datagrams(Hook::Forward, name);
            need.packet.is_ipv6 = true;
            need.packet.is_udp = false;
            if is_to_clients {
                need.packet.destination = Some(address);
                need.packet.output = vec![tun.to_owned()];
                need.nft = format!("oifname {tun} ip6 daddr {prefix}");
                need.iptables = format!("-o {tun} -d {prefix}");
            } else {
                need.packet.source = Some(address);
                need.packet.input = vec![tun.to_owned()];
                need.nft = format!("iifname {tun} ip6 saddr {prefix}");
                need.iptables = format!("-i {tun} -s {prefix}");
            }
            need
        })
    }
}

impl Rules {
    /// Asks the programs that there are. What cannot be read is nothing.
    fn read() -> Self {
        let legacy = |tables: &str, program: &str| {
            let is_used = fs::read_to_string(tables).is_ok_and(|names| !names.trim().is_empty());
            is_used.then(|| output(program, &[])).flatten()
        };
        Self {
            nftables: output("nft", &["-j", "list", "ruleset"]),
            iptables: [
                legacy(LEGACY_TABLES, "iptables-legacy-save"),
                legacy(LEGACY_TABLES_IPV6, "ip6tables-legacy-save"),
            ],
        }
    }

    /// Returns the fate of the packets with a sentence, unless they pass.
    fn verdict(&self, need: &Need) -> Option<(Fate, String)> {
        let nftables = self.nftables.as_deref();
        let nftables = nftables.and_then(|text| nftables::parse(text, &need.packet).ok());
        let iptables = self.iptables[usize::from(need.packet.is_ipv6)].as_deref();
        let iptables = iptables.map(|text| iptables::parse(text, &need.packet));
        let by_nft = worst(nftables.as_deref().unwrap_or_default());
        let by_iptables = worst(iptables.as_slice());
        let program = if need.packet.is_ipv6 {
            "ip6tables"
        } else {
            "iptables"
        };
        let (fate, chain, remedy) = if by_nft.0 >= by_iptables.0 {
            let chain = by_nft.1?;
            let remedy = format!("nft insert rule {chain} {} accept", need.nft);
            (by_nft.0, chain, remedy)
        } else {
            let chain = by_iptables.1?;
            let remedy = format!("{program} -I {chain} {} -j ACCEPT", need.iptables);
            (by_iptables.0, chain, remedy)
        };
        let may = if fate == Fate::Dropped {
            "drops"
        } else {
            "may drop"
        };
        let text = format!(
            "the firewall of this host {may} {}, in its chain {chain}: `{remedy}`, and the same in its \
             configuration",
            need.name
        );
        Some((fate, text))
    }
}

/// Returns the worst fate in the tables, and the chain that decides it.
fn worst(tables: &[Table]) -> (Fate, Option<String>) {
    let fates = tables.iter().map(judge);
    let worst = fates
        .max_by_key(|(fate, _)| *fate)
        .unwrap_or((Fate::Passed, None));
    (worst.0, worst.1.map(str::to_owned))
}

/// Judges the rules in these texts, of nft and of the older iptables, for all that a configuration needs.
/// Returns a sentence for each need that they may drop.
#[cfg(feature = "testing")]
pub fn judge_texts(config: &Config, nftables: &str, iptables: &str) -> Vec<String> {
    let rules = Rules {
        nftables: Some(nftables.to_owned()),
        iptables: [Some(iptables.to_owned()), Some(iptables.to_owned())],
    };
    let needs = needs(config).into_iter();
    needs
        .filter_map(|need| Some(rules.verdict(&need)?.1))
        .collect()
}

/// Runs a program and returns its output; `None` without the program, or when it fails.
fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let mut paths = DIRECTORIES
        .iter()
        .map(|directory| Path::new(directory).join(program));
    let path = paths.find(|path| path.exists())?;
    let output = Command::new(path)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .ok()?;
    output
        .status
        .success()
        .then_some(output.stdout)?
        .try_into()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(hook: &str, family: &str, policy: &str) -> Rules {
        Rules {
            nftables: Some(format!(
                r#"{{"nftables":[{{"chain":{{"family":"{family}","table":"filter","name":"{hook}",
                "type":"filter","hook":"{hook}","prio":0,"policy":"{policy}"}}}}]}}"#
            )),
            iptables: [None, None],
        }
    }

    #[test]
    fn a_firewall_that_drops_is_named_with_the_rule_to_add() {
        let (fate, text) = rules("input", "inet", "drop")
            .verdict(&Need::input("relay", 3545))
            .unwrap();
        assert_eq!(fate, Fate::Dropped);
        for part in [
            "drops UDP to port 3545 of the relay",
            "`nft insert rule inet filter input udp dport 3545 accept`",
        ] {
            assert!(text.contains(part), "{text}");
        }
        let open = rules("input", "inet", "accept");
        assert_eq!(open.verdict(&Need::input("relay", 3545)), None);
        let output = rules("output", "ip", "drop").verdict(&Need::output("server", 3544, None));
        assert!(output.unwrap().1.contains("udp sport 3544 accept"));
    }

    #[test]
    fn forwarding_is_needed_in_both_directions() {
        let address = IpAddr::V6("2001::".parse().unwrap());
        let closed = rules("forward", "ip6", "drop");
        for (need, rule) in Need::forward("2001::/32", address, "teredo").iter().zip([
            "oifname teredo ip6 daddr 2001::/32 accept",
            "iifname teredo ip6 saddr 2001::/32 accept",
        ]) {
            let (fate, text) = closed.verdict(need).unwrap();
            assert!(fate == Fate::Dropped && text.contains(rule), "{text}");
        }
        let ipv4 = rules("forward", "ip", "drop");
        assert_eq!(
            ipv4.verdict(&Need::forward("2001::/32", address, "teredo")[0]),
            None
        );
    }

    #[test]
    fn the_older_iptables_has_its_own_command() {
        let rules = Rules {
            nftables: None,
            iptables: [
                Some("*filter\n:INPUT DROP [0:0]\nCOMMIT\n".to_owned()),
                None,
            ],
        };
        let (_, text) = rules.verdict(&Need::input("server", 3544)).unwrap();
        assert!(
            text.contains("`iptables -I INPUT -p udp --dport 3544 -j ACCEPT`"),
            "{text}"
        );
    }
}
