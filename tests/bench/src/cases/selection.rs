//! The selection among the cases.

use std::str::FromStr;

use anyhow::{Result, bail};
use teredo_lab_ebpf::SIZES;

use super::{
    Case, Direction, Part, Place, Variant,
    part::{HOSTS, PEERS},
};

/// Words of `--only`. Of each kind (part, variant, direction, size, number of clients or hosts) the named
/// ones are selected, or all if none is named.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    parts: Vec<Part>,
    variants: Vec<Variant>,
    directions: Vec<Direction>,
    sizes: Vec<u16>,
    counts: Vec<u32>,
    /// Whether a first impression is enough.
    pub is_quick: bool,
    /// The interfaces to a relay outside this machine that is measured instead of those here: to the IPv4
    /// and to the IPv6 internet.
    pub device: Option<[String; 2]>,
}

impl Selection {
    /// Whether the part is selected. Naming a workload or a variant selects the parts that have it.
    #[must_use]
    pub fn part(&self, part: Part) -> bool {
        if !self.parts.is_empty() {
            let is_possible = self.device.is_none() || part.is_for_device();
            return is_possible && self.parts.contains(&part);
        }
        if self.is_quick && !part.is_quick() {
            return false;
        }
        let any_case = !self.sizes.is_empty() || !self.counts.is_empty();
        if self.device.is_some() && !part.is_for_device() {
            return false;
        }
        match part {
            Part::Client => !any_case && self.client_variants().next().is_some(),
            Part::TestRun | Part::Churn => self.variants.is_empty() && !any_case,
            Part::Solicitations => !any_case && self.directions.is_empty(),
            Part::Memory => self.variants.is_empty() && !any_case && self.directions.is_empty(),
            Part::Throughput => true,
            part => !any_case && !self.cases(part).is_empty(),
        }
    }

    /// Whether a part is only measured for a first impression.
    #[must_use]
    pub fn is_first_impression(&self) -> bool {
        self.is_quick && self.parts.is_empty()
    }

    /// The selected variants.
    pub fn variants(&self) -> impl Iterator<Item = Variant> {
        chosen(&Variant::ALL, &self.variants)
    }

    /// The selected variants of servers. A first impression does without the one that explains others.
    pub fn servers(&self) -> impl Iterator<Item = Variant> {
        let explains = self.is_first_impression();
        self.variants()
            .filter(move |variant| variant.is_server() && !(explains && *variant == Variant::Least))
    }

    /// The selected variants of clients.
    pub fn client_variants(&self) -> impl Iterator<Item = Variant> {
        chosen(&[Variant::Userspace, Variant::Miredo], &self.variants)
    }

    /// The selected directions.
    pub fn directions(&self) -> impl Iterator<Item = Direction> {
        chosen(&Direction::ALL, &self.directions)
    }

    /// The variants of relays that a part measures: its own, or those that are named. A first impression does without
    /// those that explain others.
    #[must_use]
    pub fn relays(&self, part: Part) -> Vec<Variant> {
        let explains = |variant: &Variant| {
            matches!(
                variant,
                Variant::Least
                    | Variant::Padded
                    | Variant::Uncounted
                    | Variant::Threads
                    | Variant::Calls
            )
        };
        match (&self.device, self.variants.is_empty()) {
            (Some(_), _) => vec![Variant::Device],
            (None, true) if self.is_first_impression() => {
                let relays = part.relays().into_iter();
                relays.filter(|variant| !explains(variant)).collect()
            }
            (None, true) => part.relays(),
            (None, false) => self.variants().collect(),
        }
    }

    /// The selected workloads of a part for relays.
    #[must_use]
    pub fn cases(&self, part: Part) -> Vec<Case> {
        let mut cases = part.cases();
        let is_named = |case: &Case| {
            let is = |named: bool, none: bool| named || none;
            let directions = &self.directions;
            is(directions.contains(&case.direction), directions.is_empty())
                && is(self.sizes.contains(&case.size), self.sizes.is_empty())
                && is(self.counts.contains(&case.count()), self.counts.is_empty())
        };
        cases.retain(is_named);
        if self.device.is_some() {
            // The device would need as many neighbours.
            cases.retain(|case| case.hosts.place == Place::Behind || case.hosts.count == 1);
        }
        if self.is_first_impression() {
            cases.retain(|case| {
                let count = match part {
                    Part::Peers => case.count() == 262_144,
                    Part::Hosts => case.count() == 10_000,
                    _ => true,
                };
                count && case.size == SIZES[0]
            });
        }
        cases
    }
}

fn chosen<T: Copy + PartialEq>(all: &[T], named: &[T]) -> impl Iterator<Item = T> {
    all.iter()
        .copied()
        .filter(move |case| named.is_empty() || named.contains(case))
}

impl FromStr for Selection {
    type Err = anyhow::Error;

    /// Parses words with commas between them, such as `xdp,bare,encap,64`.
    fn from_str(text: &str) -> Result<Self> {
        let mut selection = Self::default();
        for word in text
            .split(',')
            .map(str::trim)
            .filter(|word| !word.is_empty())
        {
            let number = word.replace('_', "").parse::<u32>().ok();
            let size = SIZES
                .into_iter()
                .find(|size| number == Some((*size).into()));
            let count = counts().find(|count| number == Some(*count));
            let part = Part::ALL.into_iter().find(|(_, name)| *name == word);
            let variant = Variant::ALL.into_iter().find(|one| one.word() == word);
            let direction = Direction::ALL.into_iter().find(|one| one.word() == word);
            match (part, variant, direction, size, count) {
                (Some((part, _)), ..) => selection.parts.push(part),
                (_, Some(variant), ..) => selection.variants.push(variant),
                (_, _, Some(direction), ..) => selection.directions.push(direction),
                (_, _, _, Some(size), _) => selection.sizes.push(size),
                (_, _, _, _, Some(count)) => selection.counts.push(count),
                _ => bail!(
                    "nothing to measure is called \"{word}\"; there are {}",
                    words().join(", ")
                ),
            }
        }
        Ok(selection)
    }
}

/// The numbers of clients and native hosts.
fn counts() -> impl Iterator<Item = u32> {
    let mut counts = [PEERS.as_slice(), &HOSTS].concat();
    counts.sort_unstable();
    counts.dedup();
    counts.into_iter()
}

/// Every word that a selection knows.
#[must_use]
pub fn words() -> Vec<String> {
    let parts = Part::ALL.map(|(_, name)| name.to_owned()).into_iter();
    parts
        .chain(Variant::ALL.map(|variant| variant.word().to_owned()))
        .chain(Direction::ALL.map(|direction| direction.word().to_owned()))
        .chain(SIZES.map(|size| size.to_string()))
        .chain(counts().map(|count| count.to_string()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn select(text: &str) -> Selection {
        text.parse().unwrap()
    }

    #[test]
    fn an_empty_selection_is_everything() {
        let all = select("");
        assert_eq!(all.variants().count(), Variant::ALL.len());
        assert_eq!(all.cases(Part::Throughput).len(), 8);
        assert_eq!(all.cases(Part::Peers).len(), 10);
        assert!(Part::ALL.iter().all(|(part, _)| all.part(*part)));
    }

    #[test]
    fn words_of_one_kind_add_up_and_kinds_restrict_each_other() {
        let some = select("xdp,bare,encap,64,10000");
        assert!(some.variants().eq([Variant::Bare, Variant::Xdp]));
        assert_eq!(
            some.cases(Part::Throughput),
            [Case::demanding(Direction::Encap)]
        );
        assert!(some.part(Part::Throughput));
        assert!(!some.part(Part::Memory) && !some.part(Part::TestRun));
        assert!(!some.part(Part::Solicitations) && !some.part(Part::Hosts));
        let memory = select("memory");
        assert!(memory.part(Part::Memory) && !memory.part(Part::Throughput));
        let peers = select("peers,262144,decap").cases(Part::Peers);
        let counts: Vec<u32> = peers.iter().map(Case::count).collect();
        assert_eq!(counts, [262_144]);
    }

    #[test]
    fn a_direction_selects_the_parts_that_have_it() {
        let encap = select("encap");
        assert!(encap.part(Part::Peers) && !encap.part(Part::Hosts));
    }

    #[test]
    fn an_unknown_word_is_refused() {
        let error = "xpd".parse::<Selection>().unwrap_err().to_string();
        assert!(error.contains("xpd") && error.contains("xdp"), "{error}");
    }
}
