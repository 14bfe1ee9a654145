//! Reports of runs.

use std::{fs, path::Path, time::Duration};

use anyhow::Result;
use serde::Serialize;

use crate::{account::Account, runner::Outcome, samples::Sample};

/// One stretch of a soak run, between two quiet moments.
#[derive(Clone, Debug, Serialize)]
pub struct Epoch {
    /// Its number.
    pub number: usize,
    /// What happened during it, besides the load.
    pub event: String,
    /// Whether the event may take packets.
    pub takes: bool,
    /// What a fault did.
    pub outcome: Option<Outcome>,
    /// The accounts.
    pub accounts: Vec<Account>,
}

impl Epoch {
    /// Prints a line.
    pub fn print(&self, elapsed: Duration) {
        let missing = self.accounts.iter();
        let missing = missing.map(|account| format!("{} {}", account.name, account.missing()));
        println!(
            "{:6.0} s  {:3}  {:30} missing: {}",
            elapsed.as_secs_f64(),
            self.number,
            self.event,
            missing.collect::<Vec<_>>().join(", ")
        );
    }

    /// Returns the accounts that do not balance.
    ///
    /// # Errors
    ///
    /// Never.
    pub fn failures(&self) -> Result<Vec<String>> {
        let wrong = self.accounts.iter();
        let wrong = wrong.filter(|account| account.missing() != 0);
        wrong
            .map(|account| {
                let text = serde_json::to_string(account)?;
                Ok(format!(
                    "stretch {} ({}): {} are missing: {text}",
                    self.number,
                    self.event,
                    account.missing()
                ))
            })
            .collect()
    }
}

/// A soak run.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// The stretches.
    pub epochs: Vec<Epoch>,
    /// What was held over time.
    pub samples: Vec<Sample>,
    /// What did not balance.
    pub failures: Vec<String>,
    /// The accounts of all stretches in which nothing was taken, together.
    pub total: Vec<Account>,
}

impl Report {
    /// Adds a stretch.
    pub fn add(&mut self, epoch: Epoch) {
        if !epoch.takes {
            if self.total.is_empty() {
                self.total.clone_from(&epoch.accounts);
            } else {
                for (total, account) in self.total.iter_mut().zip(&epoch.accounts) {
                    total.add(account);
                }
            }
        }
        self.epochs.push(epoch);
    }

    /// Writes the report as JSON.
    ///
    /// # Errors
    ///
    /// Fails when the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        Ok(fs::write(path, serde_json::to_string_pretty(self)?)?)
    }
}
