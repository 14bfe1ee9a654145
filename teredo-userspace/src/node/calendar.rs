//! The dates on which roles end (Z-03).

use std::time::SystemTime;

use crate::{
    config::Config,
    metrics::Role,
    sunset::{Date, Phase, phase},
};

/// The sunset dates of the roles.
#[derive(Debug)]
pub struct Calendar(Vec<Entry>);

#[derive(Debug)]
struct Entry {
    role: Role,
    date: Date,
    /// The phase that was logged last.
    logged: Option<Phase>,
}

impl Calendar {
    pub fn new(config: &Config) -> Self {
        let relay = config.relay.as_ref().and_then(|relay| relay.sunset);
        let server = config.server.as_ref().and_then(|server| server.sunset);
        let entry = |(role, date): (Role, Option<Date>)| {
            Some(Entry {
                role,
                date: date?,
                logged: None,
            })
        };
        let days = [(Role::Relay, relay), (Role::Server, server)];
        Self(days.into_iter().filter_map(entry).collect())
    }

    /// Returns the date on which the role ends.
    pub fn date(&self, role: Role) -> Option<Date> {
        let mut entries = self.0.iter();
        entries
            .find(|entry| entry.role == role)
            .map(|entry| entry.date)
    }

    /// Logs once a day how much time remains, and returns the roles whose date has just come. A role
    /// that was started after its date is never returned.
    pub fn roles_over(&mut self, now: SystemTime) -> Vec<Role> {
        let mut over = Vec::new();
        for entry in &mut self.0 {
            let Entry { role, date, logged } = entry;
            let phase = phase(*date, now);
            if *logged == Some(phase) {
                continue;
            }
            let name = role.name();
            match phase {
                Phase::Far => {}
                Phase::Near { days } => tracing::warn!(
                    "the {name} ends on {date}, in {days} days: set {name}.sunset to a later date, \
                     or find another for its users"
                ),
                Phase::Over if logged.is_some() => {
                    tracing::warn!("the {name} ends today, {date}, and is draining");
                    over.push(*role);
                }
                Phase::Over => {
                    tracing::warn!("the {name} was to end on {date}, but is still running")
                }
            }
            *logged = Some(phase);
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use std::{path::Path, time::Duration};

    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn calendar() -> (Calendar, SystemTime) {
        let text = "[relay]\nsunset = \"2030-06-30\"\n[server]\nipv4 = [\"198.51.100.1\", \
                    \"198.51.100.2\"]";
        let calendar = Calendar::new(&Config::parse(text, Path::new("test")).unwrap());
        let date = calendar.date(Role::Relay).unwrap();
        let midnight = SystemTime::UNIX_EPOCH + Duration::from_secs(date.timestamp());
        (calendar, midnight)
    }

    #[test]
    fn z03_a_role_ends_once_and_on_its_day() {
        let (mut calendar, midnight) = calendar();
        assert_eq!(calendar.date(Role::Server), None);
        for now in [
            midnight - 400 * DAY,
            midnight - 10 * DAY,
            midnight - DAY / 86_400,
        ] {
            assert_eq!(calendar.roles_over(now), []);
        }
        assert_eq!(calendar.roles_over(midnight), [Role::Relay]);
        assert_eq!(calendar.roles_over(midnight + DAY), []);
    }

    #[test]
    fn z03_a_role_started_after_its_day_goes_on() {
        let (mut calendar, midnight) = calendar();
        assert_eq!(calendar.roles_over(midnight), []);
        assert_eq!(calendar.roles_over(midnight + DAY), []);
    }
}
