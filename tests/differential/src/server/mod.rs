//! The server's two paths: the fast path's answers are the daemon's, octet for octet.

pub mod datagrams;
pub mod scenarios;

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use rand::{SeedableRng as _, rngs::StdRng};
use teredo_common::{
    address::Endpoint,
    limiter::Rate,
    verdict::{Action, Verdict},
};
use teredo_proto::{
    ServerAddress,
    server::{Buckets, Config, Server, Transmit},
};

use crate::{
    FastPath,
    packet::{IP, datagram},
    site::{OWN_IPV4, Port, Setup},
};

const PRIMARY: [u8; 4] = [1, 2, 3, 4];
const SECONDARY: [u8; 4] = [1, 2, 3, 5];
const PORT: u16 = 3544;

/// Returns a server with plenty of tokens on the addresses of the site.
#[must_use]
pub fn config() -> Config {
    let mut config = Config::new(PRIMARY.into(), SECONDARY.into());
    config.own_ipv4 = OWN_IPV4.map(Into::into).to_vec();
    for rate in [
        &mut config.limits.source,
        &mut config.limits.network,
        &mut config.limits.total,
    ] {
        *rate = Rate::new(10_000_000, 10_000_000);
    }
    config
}

/// The fast path and the daemon's server, which get the same datagrams.
#[derive(Debug)]
struct Pair<F> {
    fast: F,
    server: Server,
    random: StdRng,
    verdicts: BTreeMap<&'static str, usize>,
}

impl<F: FastPath> Pair<F> {
    fn new(
        make: impl Fn(&Setup) -> Result<F>,
        config: Config,
        one_interface: bool,
        seed: u64,
    ) -> Result<Self> {
        let setup = Setup {
            relay: false,
            server: Some(config.clone()),
            one_interface,
            ..Setup::default()
        };
        Ok(Self {
            fast: make(&setup)?,
            server: Server::new(config, Buckets::new()),
            random: StdRng::seed_from_u64(seed),
            verdicts: BTreeMap::new(),
        })
    }

    /// Gives a datagram to both, and returns the program's verdict.
    fn compare(&mut self, from: Endpoint, to: ServerAddress, payload: &[u8]) -> Result<Verdict> {
        let frame = datagrams::frame(&mut self.random, from, to, payload);
        let outcome = self.fast.run(Port::Wan, &frame)?;
        let output = self
            .server
            .handle_datagram(self.fast.now(), to, from, payload);
        let verdict = outcome.verdict;
        *self.verdicts.entry(verdict.reason()).or_default() += 1;
        let case =
            || format!("{verdict:?}, the daemon {output:?}: {from} to {to:?} {payload:02x?}");
        match verdict.action() {
            Action::Pass => ensure!(outcome.frame == frame, "touched: {}", case()),
            Action::Drop => ensure!(output.is_none(), "{}", case()),
            Action::Forward => {
                let Some(Transmit::Datagram { from, to, payload }) = output else {
                    anyhow::bail!("{}", case());
                };
                let from = match from {
                    ServerAddress::Primary => PRIMARY,
                    ServerAddress::Secondary => SECONDARY,
                };
                let from = Endpoint::new(from.into(), PORT);
                let identification = [outcome.frame[IP + 4], outcome.frame[IP + 5]];
                let identification = u16::from_be_bytes(identification);
                let expected = datagram(from, to, identification, payload);
                ensure!(outcome.frame[IP..] == expected, "{}", case());
            }
        }
        Ok(verdict)
    }

    /// Gives many datagrams to both.
    fn compare_many(&mut self, count: usize) -> Result<()> {
        for _ in 0..count {
            let from = datagrams::source(&mut self.random);
            let to = datagrams::destination(&mut self.random);
            let payload = datagrams::payload(&mut self.random, from);
            self.compare(from, to, &payload)?;
        }
        ensure!(self.answered() > count / 80, "{:?}", self.verdicts);
        Ok(())
    }

    /// Number of datagrams that the program answered by itself.
    fn answered(&self) -> usize {
        let answers = [Verdict::RespondAdvertised, Verdict::RespondForwarded];
        let counts = answers.map(|verdict| self.verdicts.get(verdict.reason()).copied());
        counts.into_iter().flatten().sum()
    }
}
