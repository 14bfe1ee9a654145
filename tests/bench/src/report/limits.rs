//! The limits that the results are held against.

use serde::{Deserialize, Serialize};

use super::{CaseReport, Spread, mebibytes};
use crate::{
    cases::{Variant, Workload},
    memory::{self, Memory},
};

/// The limit of resident memory and that of maps, in octets.
const MEMORY_LIMIT: u64 = 64 << 20;

/// One of the acceptance limits.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Criterion {
    /// The limited figure's name.
    pub what: String,
    /// The measured figure; `None` if no round was suitable.
    pub figure: Option<f64>,
    /// The limit.
    pub limit: f64,
    /// Whether the figure is within it.
    pub met: Option<bool>,
}

impl Criterion {
    fn at_least(what: String, figure: Option<f64>, limit: f64) -> Self {
        Self {
            what,
            figure,
            limit,
            met: figure.map(|figure| figure >= limit),
        }
    }

    fn at_most(what: String, figure: Option<f64>, limit: f64) -> Self {
        Self {
            what,
            figure,
            limit,
            met: figure.map(|figure| figure <= limit),
        }
    }

    /// The line of the table.
    #[must_use]
    pub fn line(&self) -> String {
        let verdict = match self.met {
            Some(true) => "met",
            Some(false) => "NOT MET",
            None => "unknown",
        };
        let figure = self
            .figure
            .map_or_else(String::new, |figure| format!("{figure:.2}"));
        format!(
            "{verdict:<8} {:<70} {figure:>7} (limit {})\n",
            self.what, self.limit
        )
    }
}

/// Limits of speed.
pub struct Limits {
    /// Limits of XDP, for roles that have it.
    xdp: Option<XdpLimits>,
    /// The least rate of userspace in relation to Miredo's.
    userspace_of_miredo: f64,
}

struct XdpLimits {
    /// The least rate in packets in relation to the bare program's.
    of_bare: f64,
    /// The least rate in relation to Miredo's.
    of_miredo: f64,
    /// The greatest CPU time in relation to Miredo's, if limited.
    cpu: Option<f64>,
}

impl Limits {
    /// Those of relays.
    pub const RELAY: Self = Self {
        xdp: Some(XdpLimits {
            of_bare: 0.55,
            of_miredo: 6.0,
            cpu: Some(0.1),
        }),
        userspace_of_miredo: 1.5,
    };
    /// Those of servers.
    pub const SERVER: Self = Self {
        xdp: Some(XdpLimits {
            of_bare: 0.6,
            of_miredo: 10.0,
            cpu: None,
        }),
        userspace_of_miredo: 2.0,
    };
    /// Those of clients.
    pub const CLIENT: Self = Self {
        xdp: None,
        userspace_of_miredo: 1.5,
    };

    /// Compares results with the limits.
    #[must_use]
    pub fn hold_against<W: Workload>(&self, report: &CaseReport<W>) -> Vec<Criterion> {
        let name = |what: &str| format!("{}: {what}", report.case);
        let median = |spread: Option<Spread>| spread.map(|spread| spread.median);
        let mut criteria = Vec::new();
        if let (Some(limits), Some(xdp)) = (&self.xdp, report.result(Variant::Xdp)) {
            let [of_bare, of_miredo, cpu] =
                [xdp.of_bare, xdp.of_miredo, xdp.cpu_of_miredo].map(median);
            let what = name(&format!("XDP, {}", W::OF_BARE));
            criteria.extend([
                Criterion::at_least(what, of_bare, limits.of_bare),
                Criterion::at_least(name("XDP, times Miredo"), of_miredo, limits.of_miredo),
            ]);
            if let Some(limit) = limits.cpu {
                let what = name("XDP, CPU time of Miredo's");
                criteria.push(Criterion::at_most(what, cpu, limit));
            }
        }
        if let Some(userspace) = report.result(Variant::Userspace) {
            let of_miredo = median(userspace.of_miredo);
            let what = name("userspace, times Miredo");
            criteria.push(Criterion::at_least(
                what,
                of_miredo,
                self.userspace_of_miredo,
            ));
        }
        criteria
    }
}

/// Compares the memory of a relay with its limits.
#[must_use]
pub fn of_memory(memory: &Memory) -> [Criterion; 2] {
    let limit = mebibytes(MEMORY_LIMIT);
    [(memory.resident, "resident"), (memory.maps, "of maps")].map(|(octets, what)| {
        let what = format!("{} clients: MiB {what}", memory::CLIENTS);
        Criterion::at_most(what, Some(mebibytes(octets)), limit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_beyond_a_limit_fails() {
        let (least, most) = (Criterion::at_least, Criterion::at_most);
        assert_eq!(least(String::new(), Some(0.54), 0.55).met, Some(false));
        assert_eq!(most(String::new(), Some(0.11), 0.1).met, Some(false));
        assert_eq!(most(String::new(), None, 0.1).met, None);
        let memory = Memory {
            variant: Variant::Xdp,
            resident: MEMORY_LIMIT,
            maps: MEMORY_LIMIT + 1,
        };
        let met = of_memory(&memory).map(|limit| limit.met);
        assert_eq!(met, [Some(true), Some(false)]);
    }
}
