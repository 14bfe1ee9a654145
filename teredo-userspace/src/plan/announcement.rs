//! The announcement of the relay: the moments at which its route is where routing daemons read it.
//!
//! A relay that comes and goes makes routers that speak BGP ignore its prefix for a long time (RFC 2439). So it
//! does not vanish for a moment's trouble; and where BGP announces it, one that vanishes often stays away until
//! the routers would have forgiven it. Meanwhile it serves what still comes.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use teredo_common::time::Instant;

use super::{Item, Plan, relay::relay_route};
use crate::{
    condition::Kind,
    config::{self, Config},
    metrics::Role,
};

/// The time for which the relay is announced although it cannot serve.
const FALL: Duration = Duration::from_millis(500);
/// The time for which a relay that was withdrawn serves before it is announced again.
const RISE: Duration = Duration::from_millis(500);
/// The time in which routers forget half of what they hold against a prefix.
const HALF_LIFE: Duration = Duration::from_secs(15 * 60);
/// The withdrawals after which the relay may still be announced: one more is below the six from which
/// routers ignore a prefix (RFC 7196, section 6).
const TOLERABLE: f64 = 4.0;

/// The state of the announcement.
#[derive(Debug, Default)]
pub struct Announcement {
    is_announced: bool,
    serves: bool,
    /// Whether BGP announces the route.
    speaks_bgp: bool,
    /// The moment from which the relay serves, or does not.
    since: Instant,
    /// The withdrawals, less what was forgotten until the last one.
    withdrawals: f64,
    /// The moment of the last withdrawal.
    withdrawn: Instant,
    /// Whether the process before has left the relay announced, and this one has not decided yet.
    was_announced: bool,
}

/// The part of an [`Announcement`] that outlives the process: routers do not forget with it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SavedAnnouncement {
    is_announced: bool,
    withdrawals: f64,
    withdrawn: Instant,
}

impl Announcement {
    /// Returns what the next process has to know.
    #[must_use]
    pub const fn save(&self) -> SavedAnnouncement {
        SavedAnnouncement {
            is_announced: self.is_announced || self.was_announced,
            withdrawals: self.withdrawals,
            withdrawn: self.withdrawn,
        }
    }

    /// Returns the announcement of a process that follows another.
    #[must_use]
    pub fn restore(now: Instant, saved: &SavedAnnouncement) -> Self {
        Self {
            since: now,
            was_announced: saved.is_announced,
            withdrawals: saved.withdrawals.max(0.0),
            withdrawn: saved.withdrawn,
            ..Self::default()
        }
    }

    /// Whether it matters if BGP announces the route: as long as there were few withdrawals, no router would ignore it.
    #[must_use]
    pub fn depends_on_bgp(&self) -> bool {
        self.withdrawals + 1.0 > TOLERABLE
    }

    /// Decides whether a relay that can serve, according to the plan, or cannot, is announced, and changes
    /// the plan accordingly. A plan that withdraws the relay on purpose stays as it is.
    pub fn apply(&mut self, now: Instant, config: &Config, speaks_bgp: bool, plan: &mut Plan) {
        self.speaks_bgp = speaks_bgp;
        let [announced, withdrawn] = [false, true].map(|is_withdrawn| Item::Route {
            role: Role::Relay,
            route: relay_route(config, is_withdrawn),
        });
        if plan.items.contains(&withdrawn) {
            self.set_announced(now, false);
            self.serves = false;
            return;
        }
        let place = plan.items.iter().position(|item| *item == announced);
        self.note(now, place.is_some());
        let is_diverted = plan.has(Kind::RouteDiverted);
        let is_announced = self.is_wanted(now) && !is_diverted;
        // A process that starts decides when it can serve, or has been unable to for a while.
        if is_announced || self.serves || now.saturating_since(self.since) >= FALL {
            self.set_announced(now, is_announced);
        }
        match place {
            Some(place) if !is_announced => {
                plan.items[place] = withdrawn;
                let wait = self.forgiven().saturating_since(now);
                if !wait.is_zero() {
                    let wait = wait.as_secs() + 1;
                    let prefix = config::network(config.node.prefix).to_string();
                    let text = format!(
                        "the relay was unable to serve again and again, and is announced in {wait} s, lest \
                         routers ignore its route for longer: see the log for the reasons"
                    );
                    plan.lacks(Role::Relay, Kind::RouteDamped, &prefix, text);
                }
            }
            None if is_announced => plan.items.push(announced),
            _ => {}
        }
    }

    /// Returns the time at which the decision changes by itself, if it does.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match (self.serves, self.is_announced) {
            (true, false) => Some(self.forgiven().max(self.since + RISE)),
            (false, true) => Some(self.since + FALL),
            _ => None,
        }
    }

    /// Counts a withdrawal if there was an announcement: routers do not care for the reason.
    fn set_announced(&mut self, now: Instant, is_announced: bool) {
        if (self.is_announced || self.was_announced) && !is_announced {
            self.withdrawals = self.level(now) + 1.0;
            self.withdrawn = now;
        }
        self.is_announced = is_announced;
        self.was_announced = false;
    }

    fn note(&mut self, now: Instant, serves: bool) {
        if serves != self.serves {
            self.serves = serves;
            self.since = now;
        }
    }

    fn is_wanted(&self, now: Instant) -> bool {
        let lasted = now.saturating_since(self.since);
        match (self.serves, self.is_announced) {
            (true, true) => true,
            (true, false) => {
                let is_first = self.was_announced || self.withdrawals == 0.0;
                is_first || lasted >= RISE && now >= self.forgiven()
            }
            (false, is_announced) => is_announced && lasted < FALL,
        }
    }

    /// Returns the withdrawals that routers remember.
    fn level(&self, now: Instant) -> f64 {
        let halves = now
            .saturating_since(self.withdrawn)
            .div_duration_f64(HALF_LIFE);
        self.withdrawals * (-halves).exp2()
    }

    /// Returns the moment from which the withdrawals are tolerable.
    fn forgiven(&self) -> Instant {
        if !self.speaks_bgp {
            return self.withdrawn;
        }
        let halves = (self.withdrawals / TOLERABLE).log2().max(0.0);
        self.withdrawn + HALF_LIFE.mul_f64(halves)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RelaySection;

    /// An announcement, and the relay around it.
    struct World {
        announcement: Announcement,
        speaks_bgp: bool,
        config: Config,
        now: Instant,
        plan: Plan,
    }

    impl World {
        fn new() -> Self {
            let config = Config {
                relay: Some(RelaySection::default()),
                ..Config::default()
            };
            Self {
                announcement: Announcement::default(),
                speaks_bgp: true,
                config,
                now: Instant::ZERO + Duration::from_secs(1_000),
                plan: Plan::default(),
            }
        }

        fn route(&self, is_withdrawn: bool) -> Item {
            Item::Route {
                role: Role::Relay,
                route: relay_route(&self.config, is_withdrawn),
            }
        }

        /// Another process follows.
        fn restart(&mut self) {
            self.announcement = Announcement::restore(self.now, &self.announcement.save());
        }

        /// Looks at a relay that is withdrawn on purpose.
        fn withdraw(&mut self) {
            self.plan = Plan::default();
            self.plan.items.push(self.route(true));
            let before = self.plan.clone();
            self.announcement
                .apply(self.now, &self.config, true, &mut self.plan);
            assert_eq!(self.plan, before);
        }

        /// Looks after some milliseconds, at a relay that serves or not, and returns whether it is announced.
        fn look(&mut self, milliseconds: u64, serves: bool) -> bool {
            self.now += Duration::from_millis(milliseconds);
            self.plan = Plan::default();
            if serves {
                self.plan.items.push(self.route(false));
            }
            // As the daemon asks.
            let speaks_bgp = self.announcement.depends_on_bgp() && self.speaks_bgp;
            self.announcement
                .apply(self.now, &self.config, speaks_bgp, &mut self.plan);
            let is_announced = self.plan.items.contains(&self.route(false));
            assert_eq!(
                serves && !is_announced,
                self.plan.items.contains(&self.route(true))
            );
            is_announced
        }
    }

    #[test]
    fn the_first_announcement_does_not_wait() {
        let mut world = World::new();
        assert!(!world.look(0, false));
        assert!(world.look(10, true));
        assert_eq!(world.announcement.poll_timeout(), None);
    }

    #[test]
    fn a_short_trouble_does_not_show() {
        let mut world = World::new();
        world.look(0, true);
        for _ in 0..100 {
            assert!(world.look(200, false));
            assert!(world.look(400, false));
            assert!(world.look(50, true));
        }
        assert!(!world.plan.has(Kind::RouteDamped));
    }

    #[test]
    fn trouble_that_lasts_withdraws_the_relay_until_it_serves_for_a_while() {
        let mut world = World::new();
        world.look(0, true);
        world.look(100, false);
        let fall = world.announcement.poll_timeout();
        assert_eq!(fall, Some(world.now + FALL));
        assert!(!world.look(500, false));
        assert!(!world.look(100, true));
        let rise = world.announcement.poll_timeout();
        assert_eq!(rise, Some(world.now + RISE));
        assert!(!world.plan.has(Kind::RouteDamped));
        assert!(world.look(500, true));
    }

    #[test]
    fn a_relay_that_comes_and_goes_waits_longer_than_routers_remember() {
        let mut world = World::new();
        let mut withdrawals = Vec::new();
        let mut is_announced = world.look(0, true);
        // Trouble every four seconds, for two hours.
        for second in 0..7_200 {
            let next = world.look(1_000, second % 4 < 2);
            if is_announced && !next {
                withdrawals.push(world.now);
            }
            is_announced = next;
        }
        assert!(withdrawals.len() > 5);
        // What a router holds against it never reaches the limit.
        let mut level = 0.0;
        let mut last = withdrawals[0];
        for now in withdrawals {
            level *= (-now.saturating_since(last).div_duration_f64(HALF_LIFE)).exp2();
            level += 1.0;
            last = now;
            assert!(level < 6.0, "{level}");
        }
        world.look(1_000, true);
        assert!(world.plan.has(Kind::RouteDamped));
        let due = world.announcement.poll_timeout().unwrap();
        let wait = due.saturating_since(world.now);
        assert!(world.look(wait.as_millis() as u64 + 1, true));
        assert!(!world.plan.has(Kind::RouteDamped));
    }

    #[test]
    fn a_relay_that_no_bgp_announces_is_not_damped() {
        let mut world = World::new();
        world.speaks_bgp = false;
        world.look(0, true);
        for _ in 0..100 {
            world.look(100, false);
            assert!(!world.look(500, false));
            assert!(!world.look(100, true));
            assert!(!world.plan.has(Kind::RouteDamped));
            assert!(world.look(500, true));
        }
        // A routing daemon that starts later finds a relay that has been there for long.
        world.speaks_bgp = true;
        assert!(world.look(1_000, true));
    }

    #[test]
    fn a_relay_that_drains_is_not_announced() {
        let mut world = World::new();
        world.look(0, true);
        world.withdraw();
        assert_eq!(world.announcement.poll_timeout(), None);
    }

    #[test]
    fn the_next_process_goes_on() {
        let mut world = World::new();
        world.look(0, true);
        world.look(100, false);
        assert!(!world.look(500, false));
        assert!(world.look(500, true) || world.look(500, true));
        world.restart();
        // Until it serves, for a moment.
        world.look(0, false);
        assert!(world.look(100, true));
        assert_eq!(world.announcement.withdrawals, 1.0);
    }

    #[test]
    fn what_routers_hold_against_a_relay_outlives_the_process() {
        let mut world = World::new();
        world.look(0, true);
        let mut starts = 0;
        // Each start waits for a fleet before it serves.
        while !world.plan.has(Kind::RouteDamped) {
            world.restart();
            world.withdraw();
            let _ = world.look(1_000, true) || world.look(500, true);
            starts += 1;
            assert!(starts < 10);
        }
        assert_eq!(starts, 5);
        world.restart();
        assert!(!world.look(1_000, true) && !world.look(1_000, true));
    }

    #[test]
    fn a_route_of_somebody_else_wins_at_once() {
        let mut world = World::new();
        world.look(0, true);
        world.plan = Plan::default();
        world.plan.lacks(Role::Relay, Kind::RouteDiverted, "", "");
        world
            .announcement
            .apply(world.now, &world.config, true, &mut world.plan);
        assert!(world.plan.items.is_empty());
    }
}
