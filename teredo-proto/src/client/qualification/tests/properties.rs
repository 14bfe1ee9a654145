//! Nothing that strangers send does anything.

use std::time::Duration;

use proptest::prelude::*;

use super::{
    harness::{
        MAPPED, PORT, PRIMARY, SECONDARY, World, advertisement, credentials, endpoint, seconds,
    },
    nat::Kind,
};
use crate::client::{Refresh, ServerEndpoints};

fn sources() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "1.2.3.4:3544",
        "1.2.3.5:3544",
        "1.2.3.4:1",
        "9.9.9.9:3544",
    ])
}

/// A change of an advertisement that would be good.
fn forgery() -> impl Strategy<Value = (usize, u8)> {
    // Beginning with the nonce: all that stands before it is structure.
    (4_usize..109, 1_u8..)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn c11_a02_no_garbage_and_no_guess_qualifies(
        packets in prop::collection::vec(
            (sources(), 0_u64..3000, prop::collection::vec(any::<u8>(), 0..160), any::<[u8; 8]>()),
            1..60,
        ),
    ) {
        let mut world = World::new(Kind::Restricted);
        world.silent.extend([PRIMARY, SECONDARY]);
        let start = world.now;
        for (from, wait, garbage, nonce) in packets {
            world.run(Duration::from_millis(wait));
            // An advertisement with everything right but its nonce.
            let mut guess = advertisement(&world.sent[0].payload, MAPPED);
            guess[4..12].copy_from_slice(&nonce);
            for payload in [garbage, guess] {
                world.arrives(PORT, endpoint(from), payload);
            }
            prop_assert_eq!(world.client.identity(), None);
        }
        // Three in each spell, which takes twelve seconds and a wait of five or more.
        let passed = world.now.saturating_since(start);
        let spells = 1 + passed.as_secs() / 17;
        prop_assert!(world.asked(PRIMARY).len() as u64 <= 3 * spells);
        prop_assert!(world.asked(SECONDARY).is_empty());
    }

    #[test]
    fn a01_no_forgery_of_a_secure_answer_does_anything(
        forgeries in prop::collection::vec(forgery(), 1..40),
    ) {
        let mut world = World::with(Kind::Restricted, |config| {
            config.credentials = Some(credentials(1));
            config.allow_tunnel = true;
        });
        world.silent.extend([PRIMARY, SECONDARY]);
        let server = ServerEndpoints::new(PRIMARY).primary();
        let answer = advertisement(&world.sent[0].payload, MAPPED);
        for (at, change) in forgeries {
            let mut forged = answer.clone();
            let length = forged.len();
            forged[at % length] ^= change;
            world.arrives(PORT, server, forged);
        }
        world.arrives(PORT, server, answer);
        prop_assert_eq!(world.sent.len(), 1);
    }

    #[test]
    fn c46_no_history_makes_the_client_flood(
        steps in prop::collection::vec((0_u8..8, 0_u64..20_000), 1..80),
    ) {
        let mut world = World::with(Kind::Restricted, |config| {
            config.refresh = Refresh::Fixed(seconds(5));
            config.servers.push(ServerEndpoints::new(super::harness::OTHER));
        });
        for (what, wait) in steps {
            match what {
                0 => { world.silent.insert(PRIMARY); }
                1 => { world.silent.insert(SECONDARY); }
                2 => world.silent.clear(),
                3 => world.nat.reboot(),
                4 => world.client.recheck_mapping(world.now),
                5 => world.set_network(|network| network.source = None),
                6 => world.set_network(|network| network.source = Some([10, 0, 0, wait as u8].into())),
                _ => world.set_network(|network| network.native_ipv6 = wait % 2 == 0),
            }
            world.collect();
            world.run(Duration::from_millis(wait));
        }
        for server in [PRIMARY, super::harness::OTHER] {
            let asked = world.asked(server);
            let is_slow = asked.windows(2).all(|pair| pair[1].saturating_since(pair[0]) >= seconds(2));
            prop_assert!(is_slow);
        }
        // However it went, the client is qualified when everything is well again.
        world.silent.clear();
        world.set_network(|_| ());
        world.run(seconds(1000));
        prop_assert!(world.client.identity().is_some());
        let address = world.client.identity().unwrap().address;
        world.run(seconds(1000));
        prop_assert_eq!(world.client.identity().unwrap().address, address);
    }
}
