//! Relays that start, vanish and come back.

use super::{
    harness::{Net, client, mapping, member},
    saying::{dropped, record, say},
};
use crate::fleet::{
    DropReason,
    wire::{Heartbeat, Message, Request},
};

#[test]
fn f18_a_relay_that_is_alone_joins_after_ten_seconds() {
    let mut net = Net::starting(1, |_| ());
    net.run(9_900);
    assert!(!net.nodes[0].fleet.has_joined());
    net.run(300);
    assert!(net.nodes[0].fleet.has_joined() && net.nodes[0].fleet.is_in_step());
}

#[test]
fn f17_a_relay_that_starts_gets_everything_before_it_joins() {
    let mut net = Net::new(3);
    for number in 0..2_000 {
        net.introduce(usize::from(number % 3), mapping(number), &client(number));
    }
    net.run(1_000);
    // Its own peers, too, which only the others know.
    net.restart(1);
    net.loss = 0.1;
    net.jitter = std::time::Duration::from_millis(5);
    let began = net.now;
    while !net.nodes[1].fleet.has_joined() {
        net.run(10);
    }
    let took = net.now - began;
    assert!(took.as_millis() < 3_000, "{took:?}");
    assert_eq!(net.usable(1).len(), 2_000);
    assert!(net.nodes[1].relay.peers().all(|peer| peer.proved));
    net.assert_proved();
}

/// The peers of a relay that is gone are with the others, and go to one that comes.
#[test]
fn f17_the_peers_of_a_relay_that_is_gone_are_passed_on() {
    let mut net = Net::new(3);
    net.introduce(0, mapping(1), &client(1));
    net.run(10);
    net.nodes[0].is_up = false;
    net.restart(1);
    net.run(1_500);
    assert!(net.nodes[1].fleet.has_joined());
    assert!(net.is_usable(1, &client(1)));
}

#[test]
fn f19_relays_that_start_together_join() {
    let mut net = Net::starting(16, |_| ());
    net.run(2_500);
    assert!(net.nodes.iter().all(|node| node.fleet.has_joined()));
    assert!(net.nodes.iter().all(|node| node.fleet.is_in_step()));
}

/// A relay that does not know the others yet, since their names are looked up.
fn restart_without_names(net: &mut Net, number: usize) {
    let config = &mut net.nodes[number].fleet.config;
    config.is_complete = false;
    config.members.clear();
    net.restart(number);
}

#[test]
fn f19_a_relay_waits_until_it_knows_the_others() {
    let mut net = Net::new(3);
    net.introduce(0, mapping(1), &client(1));
    restart_without_names(&mut net, 1);
    net.run(10_000);
    assert!(!net.nodes[1].fleet.has_joined());
    net.set_members(1, &[member(0), member(1), member(2)]);
    net.run(1_500);
    assert!(net.nodes[1].fleet.has_joined());
    assert!(net.is_usable(1, &client(1)));
}

#[test]
fn f19_a_relay_that_never_knows_the_others_joins_after_a_minute() {
    let mut net = Net::new(2);
    net.nodes[0].is_up = false;
    restart_without_names(&mut net, 1);
    net.run(59_000);
    assert!(!net.nodes[1].fleet.has_joined());
    net.run(1_500);
    assert!(net.nodes[1].fleet.has_joined() && !net.nodes[1].fleet.is_in_step());
}

/// A datagram with the right key shows that there is a fleet, also if its sender's address is unknown.
#[test]
fn f19_a_relay_that_hears_others_with_the_key_waits_until_it_knows_them() {
    let mut net = Net::new(2);
    restart_without_names(&mut net, 1);
    net.run(180_000);
    assert!(!net.nodes[1].fleet.has_joined());
    let stranger = net.nodes[1].fleet.stranger(net.clocks(1).now);
    assert_eq!(stranger, Some(member(0)));
    net.set_members(1, &[member(0), member(1)]);
    net.run(1_500);
    assert!(net.nodes[1].fleet.has_joined());
}

#[test]
fn f20_the_next_process_knows_the_others_while_it_looks_them_up() {
    let mut net = Net::new(2);
    let config = &mut net.nodes[1].fleet.config;
    config.is_complete = false;
    config.members.clear();
    net.hand_over(1);
    assert!(net.nodes[1].fleet.has_joined());
    net.introduce(0, mapping(1), &client(1));
    net.run(500);
    assert!(net.is_usable(1, &client(1)));
}

#[test]
fn f19_a_relay_whose_member_gives_nothing_joins_all_the_same() {
    let mut net = Net::starting(2, |_| ());
    net.run(3_000);
    net.introduce(0, mapping(1), &client(1));
    // It says that it is there, and answers no request.
    net.nodes[0].fleet.config.serve_rate = crate::Rate::new(0, 0);
    net.restart(1);
    net.run(9_000);
    assert!(!net.nodes[1].fleet.has_joined());
    net.run(4_000);
    assert!(net.nodes[1].fleet.has_joined());
    assert!(
        net.nodes[1].fleet.statistics().stalled > 1,
        "it is asked again"
    );
}

/// It says that it knows most, and gives what it likes: nothing, or a table of its own making.
#[test]
fn f17_a_relay_that_starts_gets_the_tables_of_all_that_do_not_lie() {
    for gives_nothing in [true, false] {
        let mut net = Net::new(4);
        for number in 0..200 {
            let relay = [0, 1, 3][usize::from(number % 3)];
            net.introduce(relay, mapping(number), &client(number));
        }
        net.run(100);
        // One has just gone, the next one starts, and the liar forgets everybody.
        net.nodes[3].is_up = false;
        net.run(4_000);
        net.restart(2);
        net.run(1);
        let rate = if gives_nothing { 0 } else { 45_000 };
        net.nodes[2].fleet.config.serve_rate = crate::Rate::new(rate, rate);
        net.nodes[2].fleet.is_in_step = true;
        net.cut.extend([(0, 2), (1, 2)]);
        net.restart(1);
        let began = net.now;
        while !net.nodes[1].fleet.has_joined() {
            boast(&mut net);
            net.run(50);
        }
        assert!(net.now - began < std::time::Duration::from_secs(5));
        assert_eq!(net.usable(1).len(), 200);
    }
}

/// The third relay says that it is in step, and has more peers than anybody.
fn boast(net: &mut Net) {
    let heartbeat = Heartbeat {
        is_in_step: true,
        wants_answer: true,
        service: None,
        heard_run: net.nodes[1].fleet.others[1].own_run,
        peers: u64::MAX,
    };
    say(net, 2, 1, &Message::Heartbeat(heartbeat));
}

/// Looking at parts of a table costs work, whatever is in them.
#[test]
fn f17_a_relay_that_asks_for_much_is_answered_less() {
    let mut net = Net::starting(2, |_| ());
    net.run(3_000);
    for number in 0..10_000 {
        net.introduce(0, mapping(number), &client(number));
    }
    net.run(35_000);
    let request = Request {
        id: 1,
        first: 0,
        count: 64,
        only_own: true,
    };
    let before = net.sent[0].0;
    for _ in 0..1_000 {
        let request = record(&mut net, 1, 0, &Message::Request(request));
        net.receive(1, 0, &request);
    }
    let answers = net.sent[0].0 - before;
    assert!((100..150).contains(&answers), "{answers}");
    assert!(dropped(&net, 0, DropReason::Rate) > 800);
}

#[test]
fn f18_both_sides_of_a_partition_learn_what_the_other_has() {
    let mut net = Net::new(4);
    for (one, other) in [(0, 2), (0, 3), (1, 2), (1, 3)] {
        net.cut.extend([(one, other), (other, one)]);
    }
    net.run(5_000);
    for number in 0..200 {
        net.introduce(usize::from(number % 4), mapping(number), &client(number));
    }
    net.run(5_000);
    let sizes = [net.usable(0).len(), net.usable(2).len()];
    assert_eq!(sizes, [100, 100]);
    net.cut.clear();
    net.run(2_000);
    for number in 0..4 {
        assert_eq!(net.usable(number).len(), 200, "relay {number}");
        assert!(net.nodes[number].fleet.is_in_step());
        assert!(net.nodes[number].fleet.has_joined());
    }
}

#[test]
fn f18_a_relay_that_is_heard_but_does_not_hear_is_not_waited_for() {
    let mut net = Net::new(3);
    net.cut.insert((0, 1));
    net.run(10_000);
    assert!(net.nodes.iter().all(|node| node.fleet.has_joined()));
    net.introduce(1, mapping(1), &client(1));
    net.run(10);
    assert!(net.is_usable(2, &client(1)));
    net.cut.clear();
    net.run(3_000);
    assert!(net.is_usable(0, &client(1)));
    assert!(net.nodes.iter().all(|node| node.fleet.is_in_step()));
}

/// The same run goes on, so that nothing is transferred but what each relay hears itself.
#[test]
fn f20_another_process_goes_on_in_step() {
    let mut net = Net::new(3);
    for number in 0..100 {
        net.introduce(1, mapping(number), &client(number));
    }
    net.run(100);
    net.hand_over(1);
    assert!(net.nodes[1].fleet.has_joined());
    assert_eq!(net.usable(1).len(), 100);
    net.run(1_500);
    assert!(net.nodes[1].fleet.is_in_step());
    let dropped = net.nodes[0].fleet.statistics().dropped;
    assert!(dropped.iter().all(|(_, count)| count == 0), "{dropped:?}");
    net.introduce(1, mapping(200), &client(200));
    net.run(10);
    assert!(net.is_usable(0, &client(200)));
}
