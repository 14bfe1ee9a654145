//! The days on which roles end (requirement Z-03).

use std::time::SystemTime;

use crate::{
    config::Config,
    metrics::Role,
    sunset::{Date, Phase, phase},
};

/// The day of every role that has one.
#[derive(Debug)]
pub struct Calendar(Vec<Entry>);

#[derive(Debug)]
struct Entry {
    role: Role,
    date: Date,
    /// What the operator was told last.
    told: Option<Phase>,
}

impl Calendar {
    pub fn new(config: &Config) -> Self {
        let relay = config.relay.as_ref().and_then(|relay| relay.sunset);
        let server = config.server.as_ref().and_then(|server| server.sunset);
        let entry = |(role, date): (Role, Option<Date>)| {
            Some(Entry {
                role,
                date: date?,
                told: None,
            })
        };
        let days = [(Role::Relay, relay), (Role::Server, server)];
        Self(days.into_iter().filter_map(entry).collect())
    }

    /// The role's day.
    pub fn date(&self, role: Role) -> Option<Date> {
        let mut entries = self.0.iter();
        entries
            .find(|entry| entry.role == role)
            .map(|entry| entry.date)
    }

    /// Tells the operator once a day what comes, and returns the roles whose day has come. Whoever
    /// was started in spite of its date goes on.
    pub fn turn(&mut self, now: SystemTime) -> Vec<Role> {
        let mut over = Vec::new();
        for entry in &mut self.0 {
            let Entry { role, date, told } = entry;
            let phase = phase(*date, now);
            if *told == Some(phase) {
                continue;
            }
            let name = role.name();
            match phase {
                Phase::Far => {}
                Phase::Near { days } => tracing::warn!(
                    "the {name} ends on {date}, in {days} days: set {name}.sunset to a later date, \
                     or find another for those who use it"
                ),
                Phase::Over if told.is_some() => {
                    tracing::warn!("the {name} ends today, {date}, and is draining");
                    over.push(*role);
                }
                Phase::Over => tracing::warn!("the {name} was to end on {date}, and runs still"),
            }
            *told = Some(phase);
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
            assert_eq!(calendar.turn(now), []);
        }
        assert_eq!(calendar.turn(midnight), [Role::Relay]);
        assert_eq!(calendar.turn(midnight + DAY), []);
    }

    #[test]
    fn z03_who_was_started_after_its_day_goes_on() {
        let (mut calendar, midnight) = calendar();
        assert_eq!(calendar.turn(midnight), []);
        assert_eq!(calendar.turn(midnight + DAY), []);
    }
}
