//! One account: what was sent, and what became of it.

use std::collections::BTreeMap;

use serde::Serialize;

/// One side of an account.
pub type Side = Vec<(String, i64)>;

/// An account that has to balance.
#[derive(Clone, Debug, Serialize)]
pub struct Account {
    /// The name.
    pub name: &'static str,
    /// The packets that entered.
    pub sent: Side,
    /// The packets that arrived or were counted elsewhere.
    pub found: Side,
}

impl Account {
    /// Returns the packets that nothing names.
    #[must_use]
    pub fn missing(&self) -> i64 {
        let sum = |side: &Side| side.iter().map(|(_, count)| count).sum::<i64>();
        sum(&self.sent) - sum(&self.found)
    }

    /// Adds another account of the same name.
    pub fn add(&mut self, other: &Self) {
        for (side, others) in [
            (&mut self.sent, &other.sent),
            (&mut self.found, &other.found),
        ] {
            for (name, count) in others {
                match side.iter_mut().find(|(known, _)| known == name) {
                    Some((_, sum)) => *sum += count,
                    None => side.push((name.clone(), *count)),
                }
            }
        }
    }

    /// Returns the account of what happened since an earlier one.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let minus = |later: &Side, earlier: &Side| {
            let before: BTreeMap<_, _> = earlier.iter().cloned().collect();
            let rows = later.iter().map(|(name, count)| {
                let old = before.get(name).copied().unwrap_or(0);
                (name.clone(), count - old)
            });
            rows.filter(|&(_, count)| count != 0).collect()
        };
        Self {
            name: self.name,
            sent: minus(&self.sent, &earlier.sent),
            found: minus(&self.found, &earlier.found),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(sent: i64, arrived: i64, dropped: i64) -> Account {
        let row = |name: &str, count| (name.to_owned(), count);
        Account {
            name: "relay",
            sent: vec![row("sent", sent)],
            found: vec![row("arrived", arrived), row("dropped", dropped)],
        }
    }

    #[test]
    fn an_account_balances_when_everything_is_named() {
        assert_eq!(account(10, 7, 3).missing(), 0);
        assert_eq!(account(10, 7, 2).missing(), 1);
        let later = account(20, 7, 3).since(&account(10, 7, 3));
        assert_eq!(later.missing(), 10);
        assert!(later.found.is_empty());
        let mut sum = account(10, 7, 2);
        sum.add(&later);
        assert_eq!(sum.missing(), 11);
    }
}
