//! A model of the kernel's tables, and of a daemon that keeps its plan.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv6Net};
use rtnetlink::packet_route::link::InfoKind;
use teredo_common::time::Instant;

use crate::{
    condition::{Condition, Conditions},
    config::Config,
    datapath::route::{HostAddress, Table},
    host::{Link, Route, Setting, Snapshot},
    metrics::Role,
    plan::{Act, Item, Own, Plan, Reconciler, State, Tunnelled, scope},
};

/// The settings that every interface has.
const SETTINGS: [(&str, &str); 6] = [
    ("ipv4", "forwarding"),
    ("ipv6", "forwarding"),
    ("ipv6", "disable_ipv6"),
    ("ipv6", "addr_gen_mode"),
    ("ipv6", "ignore_routes_with_linkdown"),
    ("ipv6", "accept_ra"),
];

/// The tables of the kernel.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Kernel {
    pub links: BTreeMap<u32, Link>,
    pub addresses: Vec<HostAddress>,
    pub routes: Vec<Route>,
    pub settings: BTreeMap<Setting, String>,
    next_index: u32,
    next_program: u32,
}

impl Kernel {
    pub fn new() -> Self {
        let mut kernel = Self {
            next_index: 1,
            next_program: 1,
            ..Self::default()
        };
        kernel.add_settings("all");
        kernel.add_link("lo", None);
        kernel
    }

    fn add_settings(&mut self, interface: &str) {
        for (family, name) in SETTINGS {
            let setting = Setting {
                family,
                interface: interface.to_owned(),
                name,
            };
            self.settings.insert(setting, "0".to_owned());
        }
    }

    pub fn add_link(&mut self, name: &str, kind: Option<InfoKind>) -> u32 {
        let index = self.next_index;
        self.next_index += 1;
        let is_tun = kind == Some(InfoKind::Tun);
        let link = Link {
            name: name.to_owned(),
            index,
            mtu: 1500,
            is_ethernet: !is_tun,
            is_point_to_point: is_tun,
            kind,
            controller: None,
            lower: None,
            vlan: None,
            keeps_tags: false,
            is_up: !is_tun,
            has_carrier: true,
            dropped: 0,
            xdp_program: None,
        };
        self.links.insert(index, link);
        self.add_settings(name);
        index
    }

    pub fn index_of(&self, name: &str) -> Option<u32> {
        let mut links = self.links.values();
        links.find(|link| link.name == name).map(|link| link.index)
    }

    pub fn delete_link(&mut self, index: u32) {
        let Some(link) = self.links.remove(&index) else {
            return;
        };
        self.addresses.retain(|one| one.interface != index);
        self.routes
            .retain(|route| !route.interfaces.contains(&index));
        self.settings
            .retain(|setting, _| setting.interface != link.name);
    }

    pub fn rename(&mut self, index: u32, name: &str) {
        if self.index_of(name).is_some() {
            return;
        }
        let Some(link) = self.links.get_mut(&index) else {
            return;
        };
        let old = std::mem::replace(&mut link.name, name.to_owned());
        let settings = std::mem::take(&mut self.settings).into_iter();
        self.settings = settings
            .map(|(setting, value)| match setting.interface == old {
                true => (
                    Setting {
                        interface: name.to_owned(),
                        ..setting
                    },
                    value,
                ),
                false => (setting, value),
            })
            .collect();
    }

    pub fn set_up(&mut self, index: u32, is_up: bool) {
        let Some(link) = self.links.get_mut(&index) else {
            return;
        };
        link.is_up = is_up;
        if !is_up {
            self.addresses
                .retain(|one| one.interface != index || one.address.is_ipv4());
            self.routes
                .retain(|route| !route.interfaces.contains(&index));
        }
    }

    pub fn set(&mut self, setting: &Setting, value: &str) -> Result<(), String> {
        let found = self.settings.get_mut(setting);
        let found = found.ok_or_else(|| format!("{setting} does not exist"))?;
        value.clone_into(found);
        Ok(())
    }

    pub fn add_address(
        &mut self,
        interface: u32,
        address: IpAddr,
        prefix_length: u8,
    ) -> Result<(), String> {
        let link = self.links.get(&interface).ok_or("no such interface")?;
        let disabled = Setting::ipv6(&link.name, "disable_ipv6");
        if address.is_ipv6()
            && self
                .settings
                .get(&disabled)
                .is_some_and(|value| value == "1")
        {
            return Err("IPv6 is disabled".to_owned());
        }
        let one = HostAddress {
            interface,
            address,
            prefix_length,
            is_global: true,
        };
        if !self.addresses.contains(&one) {
            self.addresses.push(one);
        }
        Ok(())
    }

    pub fn add_route(
        &mut self,
        destination: IpNet,
        interface: u32,
        metric: u32,
    ) -> Result<(), String> {
        self.add_route_in(Table::Main, destination, interface, metric)
    }

    fn add_route_in(
        &mut self,
        table: Table,
        destination: IpNet,
        interface: u32,
        metric: u32,
    ) -> Result<(), String> {
        let link = self.links.get(&interface).ok_or("no such interface")?;
        if !link.is_up {
            return Err("the interface is down".to_owned());
        }
        let mut routes = self.routes.iter();
        if let Some(same) = routes.find(|route| {
            (route.table, route.destination, route.metric) == (table, destination, metric)
        }) {
            return match same.interfaces == [interface] {
                true => Ok(()),
                false => Err("there is another route".to_owned()),
            };
        }
        self.routes.push(Route {
            table,
            destination,
            interfaces: vec![interface],
            gateway: None,
            metric,
            source: None,
            is_announced: false,
        });
        Ok(())
    }

    /// Attaches the program of another owner.
    pub fn occupy(&mut self, index: u32) {
        let program = self.next_program;
        self.next_program += 1;
        if let Some(link) = self.links.get_mut(&index) {
            link.xdp_program = Some(program);
        }
    }

    fn snapshot(&self, config: &Config, own: &Own, last: &Snapshot) -> Snapshot {
        let scope = scope(config, last, own);
        let settings = scope.settings.iter();
        Snapshot {
            gateways: crate::datapath::watch::Gateways::default(),
            depths: crate::datapath::watch::Depths::default(),
            links: self.links.values().cloned().collect(),
            addresses: self.addresses.clone(),
            routes: self.routes.clone(),
            settings: settings
                .filter_map(|setting| Some((setting.clone(), self.settings.get(setting)?.clone())))
                .collect(),
            has_native_route: Some(true),
        }
    }
}

/// A daemon that keeps its plan on the model.
#[derive(Debug)]
pub struct Daemon {
    pub config: Config,
    pub state: State,
    pub conditions: Conditions,
    reconciler: Reconciler,
    address: Option<Ipv4Addr>,
    last: Snapshot,
    /// The host and the client's address after the last look.
    seen: Option<(Kernel, Option<Tunnelled>)>,
    /// The time of the next look without a change.
    due: Option<Instant>,
}

impl Daemon {
    pub fn new(config: Config) -> Self {
        Self {
            config,
            state: State::default(),
            conditions: Conditions::default(),
            reconciler: Reconciler::default(),
            address: None,
            last: Snapshot::default(),
            seen: None,
            due: None,
        }
    }

    /// Gives the client an address, or takes it.
    pub fn qualify(&mut self, address: Option<Ipv6Addr>) {
        self.state.client = address.map(|address| Tunnelled { address, mtu: 1280 });
    }

    /// Returns the plan for the host as it is.
    pub fn plan(&self, kernel: &Kernel) -> (Plan, Snapshot) {
        let mut snapshot = kernel.snapshot(&self.config, &self.state.own, &self.last);
        // The settings of a tunnel are known after a first look at it.
        snapshot = kernel.snapshot(&self.config, &self.state.own, &snapshot);
        (Plan::make(&self.config, &snapshot, &self.state), snapshot)
    }

    /// Looks at the host if it has changed, or if something is due.
    pub fn look_if_due(&mut self, kernel: &mut Kernel, now: Instant) {
        let is_due = self.due.is_some_and(|due| due <= now);
        let seen = (&*kernel, self.state.client);
        if is_due || self.seen.as_ref().map(|(seen, client)| (seen, *client)) != Some(seen) {
            let has_acted = self.look(kernel, now);
            self.due = match has_acted {
                true => Some(now),
                false => self.reconciler.poll_timeout(now),
            };
            self.seen = Some((kernel.clone(), self.state.client));
        }
    }

    /// Looks at the host and acts once. Returns whether it acted.
    pub fn look(&mut self, kernel: &mut Kernel, now: Instant) -> bool {
        let links = &kernel.links;
        self.state
            .own
            .tunnels
            .retain(|_, index| links.contains_key(index));
        let (plan, _) = self.plan(kernel);
        self.make_roles(kernel, &plan);
        let (plan, snapshot) = self.plan(kernel);
        let own = self.state.own.clone();
        let acts = self
            .reconciler
            .acts(now, &plan, |item| item.is_held(&snapshot, &own));
        for act in &acts {
            let outcome = self.carry_out(kernel, act);
            self.reconciler.finish(now, act, outcome);
        }
        self.last = snapshot;
        let mut conditions = plan.conditions;
        conditions.extend(self.reconciler.conditions(now));
        self.conditions.replace(now, conditions);
        !acts.is_empty()
    }

    fn make_roles(&mut self, kernel: &mut Kernel, plan: &Plan) {
        if self.config.relay.is_some()
            && let Some(address) = plan.relay_address
            && self.address != Some(address)
        {
            self.address = Some(address);
            self.detach(kernel);
            self.open(kernel, Role::Relay);
        }
        if self.config.client.is_some() && self.state.own.tunnels.is_empty() {
            self.open(kernel, Role::Client);
        }
    }

    fn open(&mut self, kernel: &mut Kernel, role: Role) {
        let name = match role {
            Role::Relay => self.config.relay.as_ref().map(|relay| relay.tun.clone()),
            _ => self.config.client.as_ref().map(|client| client.tun.clone()),
        };
        let name = name.unwrap();
        let index = kernel.index_of(&name);
        let index = index.unwrap_or_else(|| kernel.add_link(&name, Some(InfoKind::Tun)));
        self.state.own.tunnels.insert(role, index);
    }

    fn detach(&mut self, kernel: &mut Kernel) {
        let program = self.state.own.program.take();
        self.state.own.fast_path = None;
        for link in kernel.links.values_mut() {
            if program.is_some() && link.xdp_program == program {
                link.xdp_program = None;
            }
        }
    }

    fn tunnel(&self, role: Role) -> Result<u32, String> {
        let index = self.state.own.tunnels.get(&role).copied();
        index.ok_or_else(|| "no tunnel".to_owned())
    }

    fn carry_out(&mut self, kernel: &mut Kernel, act: &Act) -> Result<(), String> {
        match act {
            Act::Place(Item::Tunnel { role, mtu }) => {
                if self.tunnel(*role).is_err() {
                    self.open(kernel, *role);
                }
                let index = self.tunnel(*role)?;
                kernel.set_up(index, true);
                if let Some(link) = kernel.links.get_mut(&index) {
                    link.mtu = u32::from(*mtu);
                }
                Ok(())
            }
            Act::Place(Item::Setting { setting, value, .. }) => kernel.set(setting, value),
            Act::Place(Item::Address { role, address }) => {
                kernel.add_address(self.tunnel(*role)?, (*address).into(), 128)
            }
            Act::Place(Item::Route { role, route }) => {
                let destination = IpNet::V6(route.prefix);
                kernel.add_route_in(route.table, destination, self.tunnel(*role)?, route.metric)
            }
            Act::Place(Item::FastPath(item)) => {
                self.detach(kernel);
                for port in &item.interfaces {
                    let link = kernel.links.get(&port.index).ok_or("no such interface")?;
                    if link.xdp_program.is_some() {
                        return Err("another program".to_owned());
                    }
                }
                let program = kernel.next_program;
                kernel.next_program += 1;
                for port in &item.interfaces {
                    if let Some(link) = kernel.links.get_mut(&port.index) {
                        link.xdp_program = Some(program);
                    }
                }
                self.state.own.program = Some(program);
                self.state.own.fast_path = Some(item.clone());
                Ok(())
            }
            Act::Remove(Item::FastPath(_)) => {
                self.detach(kernel);
                Ok(())
            }
            Act::Remove(Item::Address { address, .. }) => {
                kernel
                    .addresses
                    .retain(|one| one.address != IpAddr::V6(*address));
                Ok(())
            }
            Act::Remove(Item::Route { role, route }) => {
                let tunnel = self.tunnel(*role).unwrap_or(0);
                let routes = &mut kernel.routes;
                routes.retain(|found| !found.is(*route) || found.interfaces != [tunnel]);
                Ok(())
            }
            Act::Remove(Item::Setting { .. } | Item::Tunnel { .. }) => Ok(()),
        }
    }

    /// Returns the conditions that are true now.
    pub fn conditions(&self) -> Vec<Condition> {
        self.conditions
            .iter()
            .map(|lasting| lasting.condition.clone())
            .collect()
    }
}

/// Returns the route of a prefix that is not the daemon's.
pub fn foreign(prefix: Ipv6Net, interface: u32) -> Route {
    Route {
        table: Table::Main,
        destination: IpNet::V6(prefix),
        interfaces: vec![interface],
        gateway: None,
        metric: 1024,
        source: None,
        is_announced: false,
    }
}
