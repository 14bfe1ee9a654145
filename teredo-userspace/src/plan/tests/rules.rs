//! The rules of the plan and of the reconciler, one by one.

use std::{net::Ipv4Addr, time::Duration};

use ipnet::IpNet;
use teredo_common::{address::ServicePrefix, time::Instant};

use super::kernel::{Daemon, Kernel};
use crate::{
    condition::Kind,
    config::{ClientSection, Config, Ipv4Choice, RelaySection},
    datapath::route::Table,
    host::Setting,
    plan::{Act, Item, Notice, Plan, Reconciler, is_native},
};

const ADDRESS: Ipv4Addr = Ipv4Addr::new(9, 0, 0, 5);

fn at(milliseconds: u64) -> Instant {
    Instant::ZERO + Duration::from_millis(1_000_000 + milliseconds)
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn relay(ipv4: Ipv4Choice) -> Daemon {
    Daemon::new(Config {
        relay: Some(RelaySection {
            ipv4,
            ..RelaySection::default()
        }),
        ..Config::default()
    })
}

fn client() -> Daemon {
    Daemon::new(Config {
        client: Some(ClientSection {
            default_route: true,
            ..ClientSection::default()
        }),
        ..Config::default()
    })
}

fn host() -> Kernel {
    let mut kernel = Kernel::new();
    let outside = kernel.add_link("eth0", None);
    kernel.add_address(outside, ADDRESS.into(), 24).unwrap();
    kernel.add_route(net("0.0.0.0/0"), outside, 0).unwrap();
    kernel.set(&Setting::ipv6_forwarding("all"), "1").unwrap();
    kernel
}

/// Looks until there is nothing to do.
fn settle(daemon: &mut Daemon, kernel: &mut Kernel, from: u64) {
    for round in 0..20 {
        daemon.look(kernel, at(from + round * 100));
    }
}

fn has_route(kernel: &Kernel) -> bool {
    kernel
        .routes
        .iter()
        .any(|route| route.table == Table::Main && route.destination == net("2001::/32"))
}

fn kinds(daemon: &Daemon) -> Vec<Kind> {
    daemon
        .conditions()
        .iter()
        .map(|condition| condition.kind)
        .collect()
}

#[test]
fn a_relay_waits_for_its_address_and_for_its_route() {
    let mut kernel = Kernel::new();
    kernel.set(&Setting::ipv6_forwarding("all"), "1").unwrap();
    let mut daemon = relay(Ipv4Choice::Auto);
    settle(&mut daemon, &mut kernel, 0);
    assert_eq!(kinds(&daemon), [Kind::AddressMissing]);
    assert!(!has_route(&kernel));
    let outside = kernel.add_link("eth0", None);
    kernel.add_address(outside, ADDRESS.into(), 24).unwrap();
    kernel.add_route(net("0.0.0.0/0"), outside, 0).unwrap();
    settle(&mut daemon, &mut kernel, 10_000);
    assert_eq!(kinds(&daemon), []);
    assert!(has_route(&kernel));
    assert_eq!(kernel.links[&outside].xdp_program, daemon.state.own.program);
}

#[test]
fn a_relay_without_its_address_withdraws_route_and_program() {
    let mut kernel = host();
    let mut daemon = relay(Ipv4Choice::Address(ADDRESS));
    settle(&mut daemon, &mut kernel, 0);
    assert!(has_route(&kernel));
    kernel.addresses.retain(|one| one.address != ADDRESS);
    settle(&mut daemon, &mut kernel, 10_000);
    assert!(!has_route(&kernel));
    assert!(kernel.links.values().all(|link| link.xdp_program.is_none()));
    assert_eq!(kinds(&daemon), [Kind::AddressMissing]);
}

#[test]
fn r26_a_draining_relay_withdraws_its_route_and_keeps_its_program() {
    let mut kernel = host();
    let mut daemon = relay(Ipv4Choice::Auto);
    settle(&mut daemon, &mut kernel, 0);
    daemon.state.is_withdrawn = true;
    settle(&mut daemon, &mut kernel, 10_000);
    assert!(!has_route(&kernel));
    assert!(kernel.links.values().any(|link| link.xdp_program.is_some()));
}

#[test]
fn named_interfaces_are_used_when_they_appear() {
    let mut kernel = host();
    let mut daemon = relay(Ipv4Choice::Auto);
    let section = daemon.config.relay.as_mut().unwrap();
    section.xdp.interfaces = vec!["eth0".to_owned(), "eth9".to_owned()];
    settle(&mut daemon, &mut kernel, 0);
    assert_eq!(kinds(&daemon), [Kind::InterfaceMissing]);
    let late = kernel.add_link("eth9", None);
    settle(&mut daemon, &mut kernel, 10_000);
    assert_eq!(kinds(&daemon), []);
    assert!(kernel.links[&late].xdp_program.is_some());
}

#[test]
fn one_rule_decides_whether_the_host_has_native_ipv6() {
    let mut kernel = host();
    let uplink = kernel.add_link("eth1", None);
    let mut daemon = client();
    daemon.qualify(Some("2001:0:900::1".parse().unwrap()));
    settle(&mut daemon, &mut kernel, 0);
    let tunnel = kernel.index_of("teredo").unwrap();
    let default = |kernel: &Kernel| {
        let routes = kernel.routes.iter();
        let mut routes = routes.filter(|route| route.destination == net("::/0"));
        routes
            .find(|route| route.interfaces == [tunnel])
            .map(|route| route.metric)
    };
    assert_eq!(default(&kernel), Some(1_000_000));
    // A default route that leads nowhere does not attract packets.
    kernel.add_route(net("::/0"), uplink, 1024).unwrap();
    settle(&mut daemon, &mut kernel, 10_000);
    assert_eq!(default(&kernel), Some(1));
    kernel
        .add_address(uplink, "fd00::5".parse().unwrap(), 64)
        .unwrap();
    settle(&mut daemon, &mut kernel, 20_000);
    assert_eq!(default(&kernel), Some(1));
    // The other end of a VPN may translate a unique local address.
    kernel.links.get_mut(&uplink).unwrap().is_point_to_point = true;
    settle(&mut daemon, &mut kernel, 30_000);
    assert_eq!(default(&kernel), None);
    kernel.links.get_mut(&uplink).unwrap().is_point_to_point = false;
    kernel
        .add_address(uplink, "2a00::5".parse().unwrap(), 64)
        .unwrap();
    settle(&mut daemon, &mut kernel, 40_000);
    assert_eq!(default(&kernel), None);
}

/// Z-02: only global addresses outside of Teredo are native, and only with a default route.
#[test]
fn z02_only_global_addresses_outside_teredo_are_native() {
    for (address, expected) in [
        ("2001:db8::1", true),
        ("2400:cb00::1", true),
        // 6to4.
        ("2002:900:1::1", true),
        ("2001:0:900:1::1", false),
        ("3ffe:831f:900:1::1", false),
        ("fd00::1", false),
        ("fe80::1", false),
        ("::1", false),
        ("9.0.0.1", false),
    ] {
        let mut kernel = Kernel::new();
        let uplink = kernel.add_link("eth0", None);
        kernel
            .add_address(uplink, address.parse().unwrap(), 64)
            .unwrap();
        let prefix = ServicePrefix([0x3f, 0xfe, 0x83, 0x1f]);
        let native = |kernel: &Kernel| is_native(&client().plan(kernel).1, 0, prefix);
        assert!(!native(&kernel), "{address} without a route");
        kernel.add_route(net("::/0"), uplink, 1024).unwrap();
        assert_eq!(native(&kernel), expected, "{address}");
    }
}

fn plan() -> Plan {
    Plan {
        items: vec![item()],
        ..Plan::default()
    }
}

fn item() -> Item {
    Item::Setting {
        role: crate::metrics::Role::Relay,
        setting: Setting::ipv6_forwarding("lo"),
        value: "1",
    }
}

#[test]
fn a_loss_is_repaired_at_once_and_a_contest_with_growing_waits() {
    let mut reconciler = Reconciler::default();
    let plan = plan();
    let place = [Act::Place(item())];
    assert_eq!(reconciler.acts(at(0), &plan, |_| false), place);
    reconciler.finish(at(0), &place[0], Ok(()));
    assert!(reconciler.take_notices().is_empty());
    let mut now = 0;
    let mut waits = Vec::new();
    for _ in 0..8 {
        assert!(reconciler.acts(at(now), &plan, |_| true).is_empty());
        let lost = now;
        while reconciler.acts(at(now), &plan, |_| false).is_empty() {
            now += 100;
        }
        waits.push(now - lost);
        reconciler.finish(at(now), &place[0], Ok(()));
        now += 50;
    }
    assert_eq!(waits, [0, 100, 200, 400, 800, 800, 800, 800]);
    let notices = reconciler.take_notices();
    assert_eq!(notices, [Notice::Lost(item()), Notice::Contested(item())]);
    let kinds = |now| -> Vec<_> {
        let conditions = reconciler.conditions(at(now)).into_iter();
        conditions.map(|condition| condition.kind).collect()
    };
    assert_eq!(kinds(now), [Kind::Contested]);
    assert!(kinds(now + 1_700).is_empty());
}

#[test]
fn after_a_calm_a_loss_is_the_first_again() {
    let mut reconciler = Reconciler::default();
    let (plan, place) = (plan(), Act::Place(item()));
    reconciler.acts(at(0), &plan, |_| false);
    reconciler.finish(at(0), &place, Ok(()));
    for start in [0, 100_000, 200_000] {
        reconciler.acts(at(start + 99_000), &plan, |_| true);
        let acts = reconciler.acts(at(start + 99_100), &plan, |_| false);
        assert_eq!(acts, [Act::Place(item())]);
        reconciler.finish(at(start + 99_100), &place, Ok(()));
        assert_eq!(reconciler.take_notices(), [Notice::Lost(item())]);
    }
}

#[test]
fn a_refusal_is_a_condition_until_it_ends() {
    let mut reconciler = Reconciler::default();
    let (plan, place) = (plan(), Act::Place(item()));
    reconciler.acts(at(0), &plan, |_| false);
    reconciler.finish(at(0), &place, Err("read-only".to_owned()));
    assert!(reconciler.acts(at(50), &plan, |_| false).is_empty());
    assert_eq!(reconciler.poll_timeout(at(0)), Some(at(100)));
    let conditions = reconciler.conditions(at(50));
    assert_eq!(conditions.len(), 1);
    assert_eq!(
        (conditions[0].kind, &*conditions[0].text),
        (Kind::Setting, "read-only")
    );
    // Somebody else has set it.
    assert!(reconciler.acts(at(60), &plan, |_| true).is_empty());
    assert!(reconciler.conditions(at(60)).is_empty());
    // It is not wanted any more.
    reconciler.acts(at(100), &plan, |_| false);
    reconciler.finish(at(100), &place, Err("read-only".to_owned()));
    assert!(
        reconciler
            .acts(at(300), &Plan::default(), |_| false)
            .is_empty()
    );
    assert!(reconciler.conditions(at(300)).is_empty());
}

#[test]
fn forwarding_is_switched_on_without_losing_an_announced_route() {
    let mut kernel = host();
    let uplink = kernel.index_of("eth0").unwrap();
    kernel.set(&Setting::ipv6_forwarding("all"), "0").unwrap();
    kernel
        .set(&Setting::ipv6("eth0", "accept_ra"), "1")
        .unwrap();
    kernel.add_route(net("::/0"), uplink, 1024).unwrap();
    let daemon = relay(Ipv4Choice::Auto);
    let fixes = |kernel: &Kernel| -> Vec<String> {
        let (plan, snapshot) = daemon.plan(kernel);
        let fixes = plan.fixes(&daemon.config, &snapshot).into_iter();
        fixes.map(|fix| fix.to_string()).collect()
    };
    let forward = "sysctl -w net.ipv6.conf.all.forwarding=1";
    assert_eq!(fixes(&kernel), [forward]);
    kernel
        .routes
        .iter_mut()
        .for_each(|route| route.is_announced = true);
    let accept = "sysctl -w net.ipv6.conf.eth0.accept_ra=2";
    assert_eq!(fixes(&kernel), [accept, forward]);
    // With other values nothing is lost.
    for value in ["0", "2"] {
        kernel
            .set(&Setting::ipv6("eth0", "accept_ra"), value)
            .unwrap();
        assert_eq!(fixes(&kernel), [forward]);
    }
    kernel
        .set(&Setting::ipv6("eth0", "accept_ra"), "1")
        .unwrap();
    let (plan, _) = daemon.plan(&kernel);
    let text = &plan.conditions[0].text;
    assert!(text.contains(&format!("{accept} && {forward}")), "{text}");
    kernel.set(&Setting::ipv6_forwarding("all"), "1").unwrap();
    assert_eq!(fixes(&kernel), [""; 0]);
}

#[test]
fn routes_that_an_earlier_run_left_go() {
    let mut kernel = host();
    let mut daemon = relay(Ipv4Choice::Address(ADDRESS));
    settle(&mut daemon, &mut kernel, 0);
    daemon.state.is_withdrawn = true;
    settle(&mut daemon, &mut kernel, 10_000);
    let tables = |kernel: &Kernel| -> Vec<Table> {
        let routes = kernel.routes.iter();
        let ours = routes.filter(|route| route.destination == net("2001::/32"));
        ours.map(|route| route.table).collect()
    };
    assert_eq!(tables(&kernel), [Table::Local]);
    // The next run finds what a crash left.
    let mut daemon = relay(Ipv4Choice::Address(ADDRESS));
    settle(&mut daemon, &mut kernel, 20_000);
    assert_eq!(tables(&kernel), [Table::Main]);
}

#[test]
fn no_program_runs_where_vlan_tags_may_be_hidden() {
    use rtnetlink::packet_route::link::InfoKind;

    let wants_program = |kind: Option<InfoKind>, has_vlan: bool, hidden: bool| {
        let mut kernel = host();
        let outside = kernel.index_of("eth0").unwrap();
        kernel.links.get_mut(&outside).unwrap().kind = kind;
        if has_vlan {
            let vlan = kernel.add_link("eth0.10", Some(InfoKind::Vlan));
            kernel.links.get_mut(&vlan).unwrap().lower = Some(outside);
        }
        let mut daemon = relay(Ipv4Choice::Auto);
        if hidden {
            daemon.state.hidden_tags.insert(outside);
        }
        settle(&mut daemon, &mut kernel, 0);
        let is_reported = kinds(&daemon).contains(&Kind::FastPathOff);
        let (plan, _) = daemon.plan(&kernel);
        let has_program = plan
            .items
            .iter()
            .any(|item| matches!(item, Item::FastPath(_)));
        assert_eq!(is_reported, !has_program);
        has_program
    };
    assert!(wants_program(Some(InfoKind::Veth), false, false));
    assert!(!wants_program(Some(InfoKind::Veth), true, false));
    assert!(!wants_program(Some(InfoKind::Bridge), true, false));
    // The driver leaves tags in frames, and a VLAN interface has removed them.
    assert!(wants_program(None, true, false));
    assert!(wants_program(Some(InfoKind::Vlan), true, false));
    assert!(!wants_program(None, false, true));
}

/// The program of a VLAN interface is attached to the interface below, as long as XDP sees the tags there.
#[test]
fn the_program_of_a_vlan_interface_is_below_it() {
    use crate::{host::VlanTag, plan::Vlan};
    use rtnetlink::packet_route::link::InfoKind;
    use teredo_common::vlan::{Tags, Trunk};

    let tag = |is_service, number| Some(VlanTag { is_service, number });
    let mut kernel = Kernel::new();
    let eth0 = kernel.add_link("eth0", None);
    let outer = kernel.add_link("eth0.100", Some(InfoKind::Vlan));
    let inner = kernel.add_link("eth0.100.10", Some(InfoKind::Vlan));
    for (index, lower, vlan) in [
        (outer, eth0, tag(true, 100)),
        (inner, outer, tag(false, 10)),
    ] {
        let link = kernel.links.get_mut(&index).unwrap();
        (link.lower, link.vlan) = (Some(lower), vlan);
    }
    kernel.add_address(inner, ADDRESS.into(), 24).unwrap();
    kernel.add_route(net("0.0.0.0/0"), inner, 0).unwrap();
    kernel.add_route(net("::/0"), inner, 1024).unwrap();
    kernel.set(&Setting::ipv6_forwarding("all"), "1").unwrap();

    let item = |kernel: &mut Kernel, hidden: bool| {
        let mut daemon = relay(Ipv4Choice::Auto);
        if hidden {
            daemon.state.hidden_tags.insert(eth0);
        }
        settle(&mut daemon, kernel, 0);
        let (plan, _) = daemon.plan(kernel);
        let mut items = plan.items.into_iter();
        let item = items.find_map(|item| match item {
            Item::FastPath(item) => Some(item),
            _ => None,
        });
        let item = item.unwrap();
        let ports = item.interfaces.iter();
        let ports: Vec<_> = ports.map(|port| (port.index, port.is_served)).collect();
        (ports, item.vlans)
    };
    let vlan = |tags| Vlan {
        index: inner,
        trunk: Trunk {
            interface: eth0,
            tags,
        },
    };
    let tags = Tags::NONE
        .and(true, 100)
        .and_then(|tags| tags.and(false, 10));
    let below = (vec![(eth0, false)], vec![vlan(tags.unwrap())]);
    assert_eq!(item(&mut kernel, false), below);
    // Another number.
    kernel.links.get_mut(&inner).unwrap().vlan = tag(false, 20);
    let tags = Tags::NONE
        .and(true, 100)
        .and_then(|tags| tags.and(false, 20));
    let below = (vec![(eth0, false)], vec![vlan(tags.unwrap())]);
    assert_eq!(item(&mut kernel, false), below);
    // Packets of eth0 itself, too.
    kernel.add_route(net("::/0"), eth0, 2048).unwrap();
    assert_eq!(item(&mut kernel, false).0, [(eth0, true)]);
    kernel.routes.retain(|route| route.interfaces != [eth0]);

    let above = (vec![(inner, true)], Vec::new());
    assert_eq!(
        item(&mut kernel, true),
        above,
        "tags are found to be hidden"
    );
    kernel.links.get_mut(&inner).unwrap().vlan = None;
    assert_eq!(item(&mut kernel, false), above, "tags depend on priorities");
    kernel.links.get_mut(&inner).unwrap().vlan = tag(false, 20);
    kernel.links.get_mut(&eth0).unwrap().kind = Some(InfoKind::Veth);
    assert_eq!(
        item(&mut kernel, false),
        above,
        "nobody knows where tags are"
    );
    kernel.links.get_mut(&eth0).unwrap().keeps_tags = true;
    assert_eq!(item(&mut kernel, false), below, "the operator knows");
}
