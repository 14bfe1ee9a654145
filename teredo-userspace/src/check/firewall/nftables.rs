//! The rules of nftables, as `nft -j list ruleset` prints them.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use serde_json::Value;

use super::rules::{Action, Match, Packet, Rule, Table};

/// Statements that do not decide about a packet.
const HARMLESS: [&str; 9] = [
    "counter",
    "log",
    "comment",
    "mangle",
    "meta",
    "ct helper",
    "notrack",
    "set",
    "map",
];

/// Returns the tables whose chains the packets pass, with their rules judged for these packets. A chain
/// is named with its table. Fails on text that is not of nft.
pub fn parse(text: &str, packet: &Packet) -> Result<Vec<Table>, serde_json::Error> {
    let document: Value = serde_json::from_str(text)?;
    let mut tables: BTreeMap<(String, String), Table> = BTreeMap::new();
    let objects = document["nftables"].as_array().into_iter().flatten();
    for object in objects {
        if let Some(chain) = object.get("chain").filter(|chain| concerns(chain, packet)) {
            let table = tables.entry(table_of(chain, "table")).or_default();
            let name = full_name(chain, "name");
            let is_base = chain["hook"] == packet.hook.name() && chain["type"] == "filter";
            if is_base {
                table.base.push((name.clone(), chain["policy"] == "drop"));
            }
            table.chains.entry(name).or_default();
        } else if let Some(rule) = object.get("rule").filter(|rule| concerns(rule, packet)) {
            let table = tables.entry(table_of(rule, "table")).or_default();
            let rules = judge(rule, packet);
            let chain = table.chains.entry(full_name(rule, "chain")).or_default();
            chain.extend(rules);
        }
    }
    Ok(tables
        .into_values()
        .filter(|table| !table.base.is_empty())
        .collect())
}

/// Returns whether the object is of the packets' family.
fn concerns(object: &Value, packet: &Packet) -> bool {
    let own = if packet.is_ipv6 { "ip6" } else { "ip" };
    object["family"] == own || object["family"] == "inet"
}

fn table_of(object: &Value, key: &str) -> (String, String) {
    let text = |key: &str| object[key].as_str().unwrap_or_default().to_owned();
    (text("family"), text(key))
}

/// Returns family, table and name of a chain, as nft's commands have them.
fn full_name(object: &Value, key: &str) -> String {
    let text = |key: &str| object[key].as_str().unwrap_or_default();
    format!("{} {} {}", text("family"), text("table"), text(key))
}

/// Returns a rule's effects: one, or one for each element of a verdict map.
fn judge(rule: &Value, packet: &Packet) -> Vec<Rule> {
    let mut matches = Match::All;
    let chain = |target: &Value| {
        let text = |key: &str| rule[key].as_str().unwrap_or_default();
        let target = target["target"].as_str().unwrap_or_default();
        format!("{} {} {target}", text("family"), text("table"))
    };
    for statement in rule["expr"].as_array().into_iter().flatten() {
        let Some((name, value)) = statement
            .as_object()
            .and_then(|object| object.iter().next())
        else {
            continue;
        };
        if let Some(action) = action(name, value, &chain) {
            return vec![Rule { matches, action }];
        }
        match &**name {
            "match" => matches = matches.and(condition(value, packet)),
            "limit" | "quota" | "ct count" => matches = matches.and(Match::Some),
            "vmap" => {
                let elements = value["data"]["set"].as_array().into_iter().flatten();
                let elements = elements.filter_map(|element| {
                    let (name, target) = element[1].as_object()?.iter().next()?;
                    let found = compare(&value["key"], &element[0], packet);
                    Some(Rule {
                        matches: matches.and(found),
                        action: action(name, target, &chain)?,
                    })
                });
                return elements.collect();
            }
            name if HARMLESS.contains(&name) => {}
            _ => matches = matches.and(Match::Unknown),
        }
    }
    Vec::new()
}

fn action(name: &str, value: &Value, chain: &impl Fn(&Value) -> String) -> Option<Action> {
    Some(match name {
        "accept" => Action::Accept,
        "drop" | "reject" => Action::Drop,
        "jump" => Action::Jump(chain(value)),
        "goto" => Action::Goto(chain(value)),
        "return" => Action::Return,
        "continue" => Action::Continue,
        // A target of iptables.
        "xt" if value["name"] == "REJECT" => Action::Drop,
        _ => return None,
    })
}

/// Judges `left op right`.
fn condition(condition: &Value, packet: &Packet) -> Match {
    let found = compare(&condition["left"], &condition["right"], packet);
    match condition["op"].as_str() {
        Some("==" | "in") => found,
        Some("!=") => found.not(),
        _ => Match::Unknown,
    }
}

/// Judges whether the packets have one of the values `right` at `left`.
fn compare(left: &Value, right: &Value, packet: &Packet) -> Match {
    let payload = &left["payload"];
    let field = (payload["protocol"].as_str(), payload["field"].as_str());
    let udp = |port: Option<u16>| {
        if !packet.is_udp {
            return Match::Some;
        }
        port.map_or(Match::Some, |port| {
            any(right, |value| is_number(value, port))
        })
    };
    let address = |address: Option<IpAddr>| {
        address.map_or(Match::Some, |address| {
            any(right, |value| is_in(value, address))
        })
    };
    match field {
        (Some("udp" | "th"), Some("dport")) => return udp(packet.destination_port),
        (Some("udp" | "th"), Some("sport")) => return udp(packet.source_port),
        (Some("udp"), _) => return Match::Some,
        (Some("tcp" | "icmp" | "icmpv6" | "sctp" | "dccp"), _) if packet.is_udp => {
            return Match::None;
        }
        (Some("ip"), Some("protocol")) | (Some("ip6"), Some("nexthdr")) => {
            return protocol(right, packet);
        }
        (Some("ip"), Some(_)) if packet.is_ipv6 => return Match::None,
        (Some("ip6"), Some(_)) if !packet.is_ipv6 => return Match::None,
        (Some("ip" | "ip6"), Some("saddr")) => return address(packet.source),
        (Some("ip" | "ip6"), Some("daddr")) => return address(packet.destination),
        (Some(_), Some(_)) => return Match::Some,
        _ => {}
    }
    match left["meta"]["key"].as_str() {
        Some("l4proto") => return protocol(right, packet),
        Some("nfproto") => {
            let name = if packet.is_ipv6 { "ipv6" } else { "ipv4" };
            return any(right, |value| Match::from(value == name));
        }
        Some("iifname" | "iif") => return interfaces(right, &packet.input),
        Some("oifname" | "oif") => return interfaces(right, &packet.output),
        Some(_) => return Match::Some,
        None => {}
    }
    if left["ct"]["key"] == "state" {
        let state = if packet.is_established {
            "established"
        } else {
            "new"
        };
        return any(right, |value| Match::from(value == state));
    }
    // Routes back, sockets, marks, times: true of some packets.
    match left.as_object().and_then(|object| object.keys().next()) {
        Some(name) if ["fib", "socket", "rt", "ct", "numgen", "jhash"].contains(&&**name) => {
            Match::Some
        }
        _ => Match::Unknown,
    }
}

fn protocol(right: &Value, packet: &Packet) -> Match {
    if packet.is_udp {
        any(right, |value| Match::from(value == "udp" || value == 17))
    } else {
        Match::Some
    }
}

fn interfaces(right: &Value, names: &[String]) -> Match {
    if names.is_empty() {
        return Match::Some;
    }
    let mut found = names.iter().map(|name| {
        any(right, |value| match value.as_str() {
            Some(pattern) => match pattern.strip_suffix('*') {
                Some(start) => name.starts_with(start).into(),
                None => (name == pattern).into(),
            },
            None => Match::Unknown,
        })
    });
    let first = found.next().unwrap_or(Match::Some);
    if found.all(|other| other == first) {
        first
    } else {
        Match::Some
    }
}

/// Judges a value, or each element of an anonymous set.
fn any(right: &Value, is: impl Fn(&Value) -> Match) -> Match {
    let elements = right["set"].as_array().or_else(|| right.as_array());
    let Some(elements) = elements else {
        return match right.as_str() {
            // A named set, whose elements change.
            Some(name) if name.starts_with('@') => Match::Unknown,
            _ => is(right),
        };
    };
    let found: Vec<_> = elements.iter().map(is).collect();
    [Match::All, Match::Unknown, Match::Some]
        .into_iter()
        .find(|wanted| found.contains(wanted))
        .unwrap_or(Match::None)
}

fn is_number(value: &Value, number: u16) -> Match {
    let number = u64::from(number);
    if let Some(range) = value["range"].as_array() {
        return match (
            range.first().and_then(Value::as_u64),
            range.get(1).and_then(Value::as_u64),
        ) {
            (Some(first), Some(last)) => (first..=last).contains(&number).into(),
            _ => Match::Unknown,
        };
    }
    value
        .as_u64()
        .map_or(Match::Unknown, |value| (value == number).into())
}

fn is_in(value: &Value, address: IpAddr) -> Match {
    let prefix = &value["prefix"];
    let network = match (prefix["addr"].as_str(), prefix["len"].as_u64()) {
        (Some(network), Some(length)) => format!("{network}/{length}").parse::<IpNet>().ok(),
        _ => value
            .as_str()
            .and_then(|text| text.parse::<IpAddr>().ok())
            .map(IpNet::from),
    };
    network.map_or(Match::Unknown, |network| network.contains(&address).into())
}

#[cfg(test)]
mod tests {
    use super::{
        super::rules::{Fate, Hook, judge},
        *,
    };

    fn packet() -> Packet {
        Packet {
            destination_port: Some(3545),
            input: vec!["eth0".to_owned()],
            ..Packet::datagrams(Hook::Input)
        }
    }

    /// Judges a chain `input` of this policy with these statements of its rules.
    fn fate(policy: &str, rules: &[&str], packet: &Packet) -> Fate {
        let rules: String = rules
            .iter()
            .map(|rule| {
                format!(
                    r#",{{"rule":{{"family":"inet","table":"f","chain":"input","expr":[{rule}]}}}}"#
                )
            })
            .collect();
        let text = format!(
            r#"{{"nftables":[{{"metainfo":{{}}}},{{"chain":{{"family":"inet","table":"f","name":"input",
            "type":"filter","hook":"input","prio":0,"policy":"{policy}"}}}}{rules}]}}"#
        );
        let tables = parse(&text, packet).unwrap();
        tables
            .iter()
            .map(|table| judge(table).0)
            .max()
            .unwrap_or(Fate::Passed)
    }

    const ESTABLISHED: &str = r#"{"match":{"op":"in","left":{"ct":{"key":"state"}},"right":["established","related"]}},{"accept":null}"#;
    const LOOPBACK: &str =
        r#"{"match":{"op":"==","left":{"meta":{"key":"iifname"}},"right":"lo"}},{"accept":null}"#;

    fn ports(right: &str, action: &str) -> String {
        format!(
            r#"{{"match":{{"op":"==","left":{{"payload":{{"protocol":"udp","field":"dport"}}}},"right":{right}}}}},{{"counter":{{"packets":0,"bytes":0}}}},{{"{action}":null}}"#
        )
    }

    #[test]
    fn a_policy_of_drop_needs_a_rule_for_the_port() {
        let usual = [ESTABLISHED, LOOPBACK];
        assert_eq!(fate("drop", &usual, &packet()), Fate::Dropped);
        assert_eq!(fate("accept", &usual, &packet()), Fate::Passed);
        for right in [
            "3545",
            r#"{"set":[53,{"range":[3000,4000]}]}"#,
            r#"{"set":[3544,3545]}"#,
        ] {
            let open = ports(right, "accept");
            assert_eq!(
                fate("drop", &[ESTABLISHED, &open], &packet()),
                Fate::Passed,
                "{right}"
            );
            let shut = ports(right, "drop");
            assert_eq!(
                fate("accept", &[&shut], &packet()),
                Fate::Dropped,
                "{right}"
            );
        }
        let other = ports("53", "accept");
        assert_eq!(fate("drop", &[&other], &packet()), Fate::Dropped);
        let named = ports(r#""@open""#, "accept");
        assert_eq!(fate("drop", &[&named], &packet()), Fate::PerhapsDropped);
        let answers = Packet {
            is_established: true,
            ..packet()
        };
        assert_eq!(fate("drop", &usual, &answers), Fate::Passed);
    }

    #[test]
    fn rules_about_sources_and_rates_concern_some() {
        let blocked = r#"{"match":{"op":"==","left":{"payload":{"protocol":"ip","field":"saddr"}},"right":"@bad"}},{"drop":null}"#;
        assert_eq!(fate("accept", &[blocked], &packet()), Fate::Passed);
        let strict = r#"{"match":{"op":"==","left":{"fib":{"result":"oif","flags":["saddr"]}},"right":false}},{"drop":null}"#;
        assert_eq!(fate("accept", &[strict], &packet()), Fate::Passed);
        let limited = r#"{"limit":{"rate":5,"burst":5,"per":"second"}},{"accept":null}"#;
        assert_eq!(fate("drop", &[limited], &packet()), Fate::PerhapsDropped);
        let tcp = r#"{"match":{"op":"==","left":{"payload":{"protocol":"ip","field":"protocol"}},"right":"tcp"}},{"drop":null}"#;
        assert_eq!(fate("accept", &[tcp], &packet()), Fate::Passed);
        let wild = r#"{"match":{"op":"==","left":{"meta":{"key":"iifname"}},"right":"eth*"}},{"match":{"op":"in","left":{"ct":{"key":"state"}},"right":"new"}},{"reject":{"type":"icmpx"}}"#;
        assert_eq!(fate("accept", &[wild], &packet()), Fate::Dropped);
        let unknown = r#"{"xt":{"type":"match","name":"u32"}},{"drop":null}"#;
        assert_eq!(fate("accept", &[unknown], &packet()), Fate::PerhapsDropped);
    }

    #[test]
    fn verdict_maps_are_read() {
        let states = r#"{"vmap":{"key":{"ct":{"key":"state"}},"data":{"set":[["invalid",{"drop":null}],["new",{"accept":null}]]}}}"#;
        assert_eq!(fate("drop", &[states], &packet()), Fate::Passed);
        let ports = r#"{"vmap":{"key":{"payload":{"protocol":"udp","field":"dport"}},"data":{"set":[[3545,{"drop":null}]]}}}"#;
        assert_eq!(fate("accept", &[ports], &packet()), Fate::Dropped);
    }

    #[test]
    fn other_families_and_hooks_do_not_matter() {
        let text = r#"{"nftables":[
            {"chain":{"family":"ip6","table":"f","name":"input","type":"filter","hook":"input","policy":"drop"}},
            {"chain":{"family":"inet","table":"f","name":"fwd","type":"filter","hook":"forward","policy":"drop"}},
            {"chain":{"family":"ip","table":"n","name":"pre","type":"nat","hook":"input","policy":"accept"}}]}"#;
        assert!(parse(text, &packet()).unwrap().is_empty());
        assert!(parse("nonsense", &packet()).is_err());
    }
}
