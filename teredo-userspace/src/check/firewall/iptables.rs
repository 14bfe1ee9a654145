//! The rules of the older iptables, as `iptables-legacy-save` prints them. Those of the newer one are
//! rules of nftables.

use std::net::IpAddr;

use ipnet::IpNet;

use super::rules::{Action, Hook, Match, Packet, Rule, Table};

/// Returns the table `filter`, with its rules judged for the packets.
pub fn parse(text: &str, packet: &Packet) -> Table {
    let mut table = Table::default();
    let base = match packet.hook {
        Hook::Input => "INPUT",
        Hook::Forward => "FORWARD",
        Hook::Output => "OUTPUT",
    };
    let mut is_filter = false;
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('*') {
            is_filter = name == "filter";
        } else if let Some(chain) = line.strip_prefix(':').filter(|_| is_filter) {
            let mut fields = chain.split(' ');
            let name = fields.next().unwrap_or_default().to_owned();
            if name == base {
                table
                    .base
                    .push((name.clone(), fields.next() == Some("DROP")));
            }
            table.chains.entry(name).or_default();
        } else if let Some(rule) = line.strip_prefix("-A ").filter(|_| is_filter) {
            let mut words = rule.split(' ');
            let chain = words.next().unwrap_or_default().to_owned();
            let words: Vec<_> = words.collect();
            table
                .chains
                .entry(chain)
                .or_default()
                .push(judge(&words, packet));
        }
    }
    table
}

fn judge(words: &[&str], packet: &Packet) -> Rule {
    let mut rule = Rule {
        matches: Match::All,
        action: Action::Continue,
    };
    let mut words = words.iter().copied();
    let mut is_inverted = false;
    while let Some(word) = words.next() {
        if word == "!" {
            is_inverted = true;
            continue;
        }
        let mut value = || words.next().unwrap_or_default();
        let found = match word {
            "-j" => {
                rule.action = match value() {
                    "ACCEPT" => Action::Accept,
                    "DROP" | "REJECT" => Action::Drop,
                    "RETURN" => Action::Return,
                    "LOG" | "NFLOG" | "MARK" | "CONNMARK" => Action::Continue,
                    other => Action::Jump(other.to_owned()),
                };
                // What follows are the options of the target.
                break;
            }
            "-g" => {
                rule.action = Action::Goto(value().to_owned());
                continue;
            }
            // Modules, whose options follow.
            "-m" => match value() {
                "udp" | "conntrack" | "state" | "multiport" | "comment" => continue,
                "tcp" | "icmp" | "icmp6" if packet.is_udp => Match::None,
                "limit" | "hashlimit" | "recent" | "set" | "addrtype" | "mark" => Match::Some,
                _ => Match::Unknown,
            },
            "-p" => match value() {
                "all" => Match::All,
                _ if !packet.is_udp => Match::Some,
                protocol => (protocol == "udp" || protocol == "17").into(),
            },
            "--dport" | "--dports" => ports(value(), packet.destination_port),
            "--sport" | "--sports" => ports(value(), packet.source_port),
            "--ctstate" | "--state" => {
                let state = if packet.is_established {
                    "ESTABLISHED"
                } else {
                    "NEW"
                };
                value().split(',').any(|one| one == state).into()
            }
            "-s" => address(value(), packet.source),
            "-d" => address(value(), packet.destination),
            "-i" => interface(value(), &packet.input),
            "-o" => interface(value(), &packet.output),
            "--comment" => {
                // A comment of several words is in quotation marks.
                let first = value();
                if first.starts_with('"') && !(first.len() > 1 && first.ends_with('"')) {
                    words.find(|word| word.ends_with('"'));
                }
                continue;
            }
            option if option.starts_with('-') => Match::Unknown,
            // The value of an option that is not known.
            _ => continue,
        };
        let found = if is_inverted { found.not() } else { found };
        is_inverted = false;
        rule.matches = rule.matches.and(found);
    }
    rule
}

fn ports(text: &str, port: Option<u16>) -> Match {
    let Some(port) = port else {
        return Match::Some;
    };
    let is_in = |part: &str| {
        let (first, last) = part.split_once(':').unwrap_or((part, part));
        let number = |text: &str, default| match text {
            "" => Some(default),
            text => text.parse::<u16>().ok(),
        };
        number(first, 0).is_some_and(|first| first <= port)
            && number(last, u16::MAX).is_some_and(|last| port <= last)
    };
    text.split(',').any(is_in).into()
}

fn address(text: &str, address: Option<IpAddr>) -> Match {
    let network = text
        .parse::<IpNet>()
        .or_else(|_| text.parse().map(IpAddr::into));
    match (network, address) {
        (Ok(network), Some(address)) => network.contains(&address).into(),
        (Ok(_), None) => Match::Some,
        (Err(_), _) => Match::Unknown,
    }
}

fn interface(pattern: &str, names: &[String]) -> Match {
    let is_it = |name: &String| match pattern.strip_suffix('+') {
        Some(start) => name.starts_with(start),
        None => name == pattern,
    };
    match names.iter().filter(|name| is_it(name)).count() {
        _ if names.is_empty() => Match::Some,
        0 => Match::None,
        count if count == names.len() => Match::All,
        _ => Match::Some,
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::rules::{Fate, judge as fate_in},
        *,
    };

    fn fate(rules: &str) -> Fate {
        let packet = Packet {
            destination_port: Some(3545),
            input: vec!["eth0".to_owned()],
            ..Packet::datagrams(Hook::Input)
        };
        let text = format!(
            "*nat\n:INPUT DROP [0:0]\nCOMMIT\n*filter\n{rules}\n:OTHER - [0:0]\n\
             -A OTHER -p udp -m udp --dport 3000:4000 -j ACCEPT\nCOMMIT\n"
        );
        fate_in(&parse(&text, &packet)).0
    }

    #[test]
    fn rules_and_policies_are_understood() {
        let drop = ":INPUT DROP [0:0]\n-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
                    -A INPUT -i lo -j ACCEPT\n";
        for (rules, expected) in [
            ("", Fate::Dropped),
            (
                "-A INPUT -p udp -m udp --dport 3545 -j ACCEPT",
                Fate::Passed,
            ),
            (
                "-A INPUT -p udp -m multiport --dports 53,3544:3545 -j ACCEPT",
                Fate::Passed,
            ),
            (
                "-A INPUT -p tcp -m tcp --dport 3545 -j ACCEPT",
                Fate::Dropped,
            ),
            ("-A INPUT ! -i eth1 -j OTHER", Fate::Passed),
            ("-A INPUT -s 10.0.0.0/8 -j ACCEPT", Fate::PerhapsDropped),
            (
                "-A INPUT -m u32 --u32 \"0&1=2\" -j ACCEPT",
                Fate::PerhapsDropped,
            ),
            (
                "-A INPUT -m comment --comment \"for all\" -j ACCEPT",
                Fate::Passed,
            ),
        ] {
            assert_eq!(fate(&format!("{drop}{rules}")), expected, "{rules}");
        }
        let accept = ":INPUT ACCEPT [0:0]\n";
        let reject =
            "-A INPUT -p udp -m udp --dport 3545 -j REJECT --reject-with icmp-port-unreachable";
        assert_eq!(fate(&format!("{accept}{reject}")), Fate::Dropped);
        assert_eq!(fate(accept), Fate::Passed);
    }
}
