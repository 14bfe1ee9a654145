//! The verdict of a list of firewall rules on a packet, as far as the rules can be understood.

use std::{collections::BTreeMap, net::IpAddr};

/// The deepest chain of jumps, which the kernel limits likewise.
const DEPTH_MAX: usize = 16;

/// The hooks of the kernel where packets of the daemon pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Packets to this host.
    Input,
    /// Packets through this host.
    Forward,
    /// Packets of this host.
    Output,
}

impl Hook {
    /// The name in nftables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Forward => "forward",
            Self::Output => "output",
        }
    }
}

/// The properties that the packets in question have in common. A property that is `None` or empty differs
/// from packet to packet.
#[derive(Clone, Debug)]
pub struct Packet {
    /// The hook that they pass.
    pub hook: Hook,
    /// Whether they are IPv6 packets.
    pub is_ipv6: bool,
    /// Whether they are UDP datagrams; otherwise they have many protocols.
    pub is_udp: bool,
    /// The UDP source port.
    pub source_port: Option<u16>,
    /// The UDP destination port.
    pub destination_port: Option<u16>,
    /// The address, or one of the prefix, that they come from.
    pub source: Option<IpAddr>,
    /// The address, or one of the prefix, that they go to.
    pub destination: Option<IpAddr>,
    /// The interfaces that they come by.
    pub input: Vec<String>,
    /// The interfaces that they leave by.
    pub output: Vec<String>,
    /// Whether they belong to a flow that the kernel has seen both ways.
    pub is_established: bool,
}

impl Packet {
    /// Returns UDP datagrams over IPv4 that have nothing else in common.
    pub fn datagrams(hook: Hook) -> Self {
        Self {
            hook,
            is_ipv6: false,
            is_udp: true,
            source_port: None,
            destination_port: None,
            source: None,
            destination: None,
            input: Vec::new(),
            output: Vec::new(),
            is_established: false,
        }
    }
}

/// The relation of a rule to the packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    /// All of them.
    All,
    /// None of them.
    None,
    /// Some of them, such as those from certain sources or above a rate.
    Some,
    /// That is not understood.
    Unknown,
}

impl Match {
    /// Returns the match of a packet that two conditions must concern.
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::None, _) | (_, Self::None) => Self::None,
            (Self::Some, _) | (_, Self::Some) => Self::Some,
            (Self::Unknown, _) | (_, Self::Unknown) => Self::Unknown,
            (Self::All, Self::All) => Self::All,
        }
    }

    /// Returns the match of the opposite condition.
    pub const fn not(self) -> Self {
        match self {
            Self::All => Self::None,
            Self::None => Self::All,
            other => other,
        }
    }
}

impl From<bool> for Match {
    fn from(concerns: bool) -> Self {
        if concerns { Self::All } else { Self::None }
    }
}

/// The action of a rule on a packet that it concerns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// The hook's other chains decide.
    Accept,
    /// The packet is dropped or rejected.
    Drop,
    /// Another chain decides, and the rules go on if it does not.
    Jump(String),
    /// Another chain decides, and the policy if it does not.
    Goto(String),
    /// The rules of the calling chain go on.
    Return,
    /// Nothing that matters here.
    Continue,
}

/// A rule, judged for the packets in question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Whether it concerns them.
    pub matches: Match,
    /// Its action then.
    pub action: Action,
}

/// The chains of one table: those that the hook calls, and those that they jump to.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// The rules of every chain, by its name.
    pub chains: BTreeMap<String, Vec<Rule>>,
    /// The chains that the hook calls: name, and whether the policy is to drop.
    pub base: Vec<(String, bool)>,
}

/// The fate of the packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// They pass.
    Passed,
    /// Some may be dropped, by rules that are not understood or for some sources only.
    PerhapsDropped,
    /// All but those of certain sources are dropped.
    Dropped,
}

/// The end of a walk through a chain.
#[derive(Clone, Copy)]
enum End {
    Accepted,
    Dropped,
    /// The calling chain goes on.
    Open,
}

/// The doubts that have come up on the way.
#[derive(Clone, Copy, Default)]
struct Doubts {
    accepted: bool,
    dropped: bool,
}

/// Returns the fate of the packets in a table, and the chain that decides it.
pub fn judge(table: &Table) -> (Fate, Option<&str>) {
    let mut worst = (Fate::Passed, None);
    let mut walk = Walk {
        table,
        ends: BTreeMap::new(),
    };
    for (name, drops) in &table.base {
        let (end, doubts) = walk.chain(name, 0);
        let is_dropped = match end {
            End::Accepted => false,
            End::Dropped => true,
            End::Open => *drops,
        };
        let fate = match (is_dropped, doubts.accepted, doubts.dropped) {
            (true, false, _) => Fate::Dropped,
            (true, true, _) | (false, _, true) => Fate::PerhapsDropped,
            (false, _, false) => Fate::Passed,
        };
        if fate > worst.0 {
            worst = (fate, Some(&**name));
        }
    }
    worst
}

/// A walk through the chains of a table.
struct Walk<'t> {
    table: &'t Table,
    /// The ends of the chains so far, each of which is walked once: there may be many jumps to it.
    ends: BTreeMap<&'t str, (End, Doubts)>,
}

impl<'t> Walk<'t> {
    fn chain(&mut self, name: &'t str, depth: usize) -> (End, Doubts) {
        let open = (End::Open, Doubts::default());
        if let Some(&end) = self.ends.get(name) {
            return end;
        }
        let Some(rules) = self.table.chains.get(name).filter(|_| depth < DEPTH_MAX) else {
            return open;
        };
        // The kernel accepts no chain that leads to itself.
        self.ends.insert(name, open);
        let mut doubts = Doubts::default();
        let end = self.rules(rules, &mut doubts, depth);
        self.ends.insert(name, (end, doubts));
        (end, doubts)
    }

    fn rules(&mut self, rules: &'t [Rule], doubts: &mut Doubts, depth: usize) -> End {
        for rule in rules {
            let is_certain = match rule.matches {
                Match::None => continue,
                Match::All => true,
                Match::Some | Match::Unknown => false,
            };
            let end = match &rule.action {
                Action::Continue => continue,
                Action::Accept => End::Accepted,
                Action::Drop => End::Dropped,
                Action::Return if is_certain => return End::Open,
                Action::Return => {
                    // The rest of the chain concerns some packets only.
                    doubts.accepted = true;
                    continue;
                }
                Action::Jump(to) | Action::Goto(to) => {
                    let (end, inner) = self.chain(to, depth + 1);
                    doubts.accepted |= inner.accepted;
                    // Those of certain sources are another matter.
                    doubts.dropped |= inner.dropped && rule.matches != Match::Some;
                    if is_certain && matches!(rule.action, Action::Goto(_)) {
                        return end;
                    }
                    end
                }
            };
            match (end, rule.matches) {
                (End::Open, _) | (End::Dropped, Match::Some) => {}
                (end, Match::All) => return end,
                (End::Accepted, _) => doubts.accepted = true,
                (End::Dropped, _) => doubts.dropped = true,
            }
        }
        End::Open
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(drops: bool, chains: &[(&str, &[(Match, Action)])]) -> Table {
        let rules = |rules: &[(Match, Action)]| {
            let rules = rules.iter().cloned();
            rules
                .map(|(matches, action)| Rule { matches, action })
                .collect()
        };
        let chains = chains
            .iter()
            .map(|(name, list)| ((*name).to_owned(), rules(list)));
        Table {
            chains: chains.collect(),
            base: vec![("input".to_owned(), drops)],
        }
    }

    fn fate(drops: bool, rules: &[(Match, Action)]) -> Fate {
        judge(&table(drops, &[("input", rules)])).0
    }

    #[test]
    fn the_first_rule_that_concerns_all_decides_and_then_the_policy() {
        use Action::{Accept, Drop};
        use Match::{All, None};
        assert_eq!(fate(false, &[]), Fate::Passed);
        assert_eq!(fate(true, &[]), Fate::Dropped);
        assert_eq!(fate(true, &[(All, Accept), (All, Drop)]), Fate::Passed);
        assert_eq!(fate(false, &[(All, Drop), (All, Accept)]), Fate::Dropped);
        assert_eq!(fate(false, &[(None, Drop)]), Fate::Passed);
        assert_eq!(fate(true, &[(None, Accept)]), Fate::Dropped);
    }

    #[test]
    fn what_concerns_some_or_is_not_understood_is_no_certainty() {
        use Action::{Accept, Drop};
        use Match::{All, Some, Unknown};
        assert_eq!(fate(true, &[(Some, Accept)]), Fate::PerhapsDropped);
        assert_eq!(fate(true, &[(Unknown, Accept)]), Fate::PerhapsDropped);
        assert_eq!(
            fate(false, &[(Some, Drop)]),
            Fate::Passed,
            "a list of bad sources"
        );
        assert_eq!(fate(false, &[(Unknown, Drop)]), Fate::PerhapsDropped);
        assert_eq!(fate(false, &[(Unknown, Drop), (All, Drop)]), Fate::Dropped);
        assert_eq!(fate(true, &[(Some, Drop), (All, Accept)]), Fate::Passed);
    }

    #[test]
    fn jumps_are_followed_and_returned_from() {
        use Match::All;
        let jump = |action| [(All, Action::Jump("other".to_owned())), (All, action)];
        for (inner, after, expected) in [
            (Action::Accept, Action::Drop, Fate::Passed),
            (Action::Drop, Action::Accept, Fate::Dropped),
            (Action::Return, Action::Drop, Fate::Dropped),
            (Action::Continue, Action::Accept, Fate::Passed),
        ] {
            let other = [(All, inner)];
            let table = table(true, &[("input", &jump(after)), ("other", &other)]);
            assert_eq!(judge(&table).0, expected);
        }
        let goto = [
            (All, Action::Goto("other".to_owned())),
            (All, Action::Accept),
        ];
        let left = table(true, &[("input", &goto), ("other", &[])]);
        assert_eq!(judge(&left), (Fate::Dropped, Some("input")));
        let endless = [(All, Action::Jump("input".to_owned()))];
        assert_eq!(judge(&table(false, &[("input", &endless)])).0, Fate::Passed);
    }

    #[test]
    fn a_chain_is_walked_once_for_all_jumps_to_it() {
        let names: Vec<_> = (0..DEPTH_MAX).map(|number| number.to_string()).collect();
        let jumps = |to: &str| vec![(Match::Some, Action::Jump(to.to_owned())); 100];
        let rules: Vec<_> = names[1..].iter().map(|to| jumps(to)).collect();
        let mut chains: Vec<_> = names.iter().zip(&rules).collect();
        let last = vec![(Match::All, Action::Drop)];
        chains.push((&names[DEPTH_MAX - 1], &last));
        let chains: Vec<_> = chains
            .iter()
            .map(|(name, rules)| (&***name, &***rules))
            .collect();
        let mut table = table(true, &chains);
        table.base[0].0 = "0".to_owned();
        assert_eq!(judge(&table), (Fate::Dropped, Some("0")));
    }
}
