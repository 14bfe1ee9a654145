//! A daemon without CPU time.

use anyhow::Result;
use nix::sys::signal::Signal;

use super::{Fault, Takes};
use crate::site::Site;

/// The daemon gets no CPU time.
#[derive(Debug)]
pub struct Starved;

impl Fault for Starved {
    fn name(&self) -> &'static str {
        "starved"
    }

    fn takes(&self) -> Takes {
        Takes::Daemon
    }

    fn inject(&mut self, site: &mut Site) -> Result<()> {
        site.relay.daemon.signal(Signal::SIGSTOP)
    }

    fn heal(&mut self, site: &mut Site) -> Result<()> {
        site.relay.daemon.signal(Signal::SIGCONT)
    }
}
