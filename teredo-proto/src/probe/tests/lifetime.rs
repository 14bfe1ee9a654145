//! The lifetimes of V-24.

use std::time::Duration;

use super::world::{By, Nat, World, server};
use crate::probe::{IDLE, Lifetime, LifetimeProbe};

fn measure(nat: Nat) -> (Lifetime, Duration, Vec<bool>) {
    let mut world = World::new(nat);
    let start = world.now;
    let mut probe = LifetimeProbe::new(server(), [3; 32], start);
    world.run(&mut probe);
    let progress = std::iter::from_fn(|| probe.poll_event());
    let kept = progress.map(|one| one.kept).collect();
    (probe.lifetime(), world.now.saturating_since(start), kept)
}

fn lasting(seconds: f64) -> Nat {
    let mut nat = Nat::new(By::Endpoint, By::Endpoint);
    nat.lifetime = Duration::from_secs_f64(seconds);
    nat.first_lifetime = nat.lifetime.min(nat.first_lifetime);
    nat
}

#[test]
fn v24_c52_the_interval_is_what_a_client_would_find() {
    for (lifetime, refresh) in [
        (12.0, 30.0),
        (35.0, 30.0),
        (40.0, 37.5),
        (50.0, 45.0),
        (70.0, 60.0),
        (80.0, 75.0),
        (95.0, 90.0),
        (600.0, 90.0),
    ] {
        let (found, took, progress) = measure(lasting(lifetime));
        assert_eq!(found.refresh().as_secs_f64(), refresh, "{lifetime}");
        assert!(took < Duration::from_secs(102), "{took:?}");
        assert!(found.kept.is_none_or(|kept| kept.as_secs_f64() < lifetime));
        assert!(
            found
                .lost
                .is_none_or(|lost| lost.as_secs_f64() > lifetime - 1.0)
        );
        assert_eq!(found.lost.is_none(), progress.iter().all(|&kept| kept));
    }
}

#[test]
fn c53_short_lifetimes_are_told() {
    let (found, took, progress) = measure(lasting(16.0));
    assert_eq!(found.kept, Some(Duration::from_secs(15)));
    assert_eq!(found.lost, Some(Duration::from_secs(20)));
    assert_eq!(progress, [true, true, false]);
    assert!(took < Duration::from_secs(33));
    let (found, ..) = measure(lasting(5.0));
    assert_eq!(found.kept, None);
}

/// Every idle time is measured on a mapping that nothing else has used.
#[test]
fn the_order_of_decisions_is_that_of_the_times() {
    let (found, _, progress) = measure(lasting(1000.0));
    assert_eq!(
        found,
        Lifetime {
            kept: Some(IDLE[IDLE.len() - 1]),
            lost: None
        }
    );
    assert_eq!(progress, [true; IDLE.len()]);
}
