//! Whether the frames that the program sends in native mode arrive.
//!
//! A program in a driver hands its frames to the driver of the interface that they leave by. If that
//! driver cannot send them, they vanish without a trace in the program's own counters. Nothing tells
//! the program, so the daemon looks at the drivers: before it attaches the program and once a second.
//!
//! - A veth delivers frames to the program at its other end, and nothing without one. Generic receive
//!   offload at the other end is not enough: frames that leave by the interface that they came by
//!   stay in its queue until some other frame comes. The other end may be in another network namespace, but
//!   the kernel takes segmentation away from an interface whose other end has a native program.
//! - Other drivers tell whether they take frames of other interfaces.
//! - Drivers count what they drop.

use std::{collections::HashMap, io};

use nix::net::if_::if_indextoname;

use super::{
    features::{XdpFeatures, xdp_features},
    interface::Interface,
};
use crate::datapath::ethtool::Ethtool;

/// The driver whose interfaces come in pairs.
const VETH: &str = "veth";
/// The feature that an interface of [`VETH`] lacks while its other end has a native program.
const SEGMENTATION: &str = "tx-tcp-segmentation";
/// Native mode is given up when one in so many frames is lost, or more.
const TOLERANCE: u64 = 4;
/// Lost frames below which nothing is decided: one frame may be the only one of its second, and a driver that finds a
/// frame too long may drop those that it was given with it.
const EVIDENCE: u64 = 16;

/// The reason why native mode loses frames, or does no good. The message is a clause for the user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Obstacle {
    /// The other end of a veth has no program.
    #[error(
        "frames that a native XDP program sends out of the veth `{interface}` vanish while its other end \
         has no native program: attach one there that passes every frame"
    )]
    BareEnd {
        /// Name of the interface.
        interface: String,
    },
    /// The interface takes no redirected frames.
    #[error(
        "the driver of `{interface}` takes no frames from native XDP programs of other interfaces"
    )]
    NoRedirection {
        /// Name of the interface.
        interface: String,
    },
    /// The driver drops frames.
    #[error(
        "the driver of `{interface}` dropped {dropped} of {sent} frames of the native XDP program"
    )]
    Drops {
        /// Name of the interface.
        interface: String,
        /// Frames that the driver dropped.
        dropped: u64,
        /// Frames that the program sent through all interfaces meanwhile.
        sent: u64,
    },
    /// The program has no room for outer headers.
    #[error("the driver leaves a native XDP program no room for the headers of the tunnel")]
    Headroom,
}

/// Returns the obstacle to native mode that the drivers tell before a program is attached.
///
/// # Errors
///
/// When the process has too many open files.
pub fn native_obstacle(interfaces: &[Interface]) -> io::Result<Option<Obstacle>> {
    Ok(Delivery::open()?.check_ends(interfaces).err())
}

/// Returns what is known of the interface's driver that only shows under traffic, as a clause for the
/// user.
#[must_use]
pub fn known_trouble(interface: &str) -> Option<&'static str> {
    trouble_of(&Ethtool::open().ok()?.driver(interface).ok()?)
}

/// Returns what is known of the driver of this name.
fn trouble_of(driver: &str) -> Option<&'static str> {
    match driver {
        "gve" => Some(
            "some versions of the driver gve leave native XDP programs no room for outer headers, in which \
             case the fast path leaves native mode after a few packets",
        ),
        _ => None,
    }
}

/// The program's frames so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Frames that the program sent.
    pub sent: u64,
    /// Frames that it passed on for lack of headroom.
    pub without_headroom: u64,
}

/// What is known about the drivers of the program's interfaces.
#[derive(Debug)]
pub struct Delivery {
    ethtool: Ethtool,
    ports: HashMap<u32, Port>,
    window: Window,
}

/// The looks that are judged together: the last one, and those before it that found too much lost, but too little to
/// decide.
#[derive(Debug, Default)]
struct Window {
    /// The program's frames when it began, or before.
    since: Totals,
    /// The frames that drivers have dropped, by name of the port.
    dropped: HashMap<String, u64>,
}

/// The frames that the driver of a port has dropped since the last look.
#[derive(Debug)]
pub struct Loss {
    /// Index of the interface that the program is attached to.
    pub interface: u32,
    /// Name of the port.
    name: String,
    /// Number of the frames.
    pub frames: u64,
    /// Whether there was a link. Without one, frames are lost in every mode.
    is_linked: bool,
}

/// An interface that frames leave by. The interface that the program is attached to, or a port of that
/// bond.
#[derive(Debug, Default)]
struct Port {
    /// Number of the driver's counters.
    counters: usize,
    /// The counters of dropped frames among them.
    drops: Vec<usize>,
    /// Their sum at the last look.
    dropped: u64,
    had_link: bool,
}

impl Delivery {
    /// Begins to look at drivers.
    ///
    /// # Errors
    ///
    /// When the process has too many open files.
    pub fn open() -> io::Result<Self> {
        Ok(Self {
            ethtool: Ethtool::open()?,
            ports: HashMap::new(),
            window: Window::default(),
        })
    }

    /// Checks for obstacles that are known before the program is attached.
    ///
    /// # Errors
    ///
    /// The obstacle.
    pub fn check_ends(&self, interfaces: &[Interface]) -> Result<(), Obstacle> {
        for (_, name) in interfaces.iter().flat_map(ports) {
            let driver = self.ethtool.driver(&name);
            let segmentation = self.ethtool.is_available(&name, SEGMENTATION);
            if is_bare(driver.ok().as_deref(), segmentation.ok()) {
                return Err(Obstacle::BareEnd { interface: name });
            }
        }
        Ok(())
    }

    /// Checks for obstacles that the drivers tell while the program is attached natively.
    ///
    /// # Errors
    ///
    /// The obstacle.
    pub fn check(&self, interfaces: &[Interface]) -> Result<(), Obstacle> {
        let mut linked = interfaces
            .iter()
            // Drivers and bonds may tell nothing without a link, and frames are lost in every mode.
            .filter(|interface| self.ethtool.has_link(&interface.name).unwrap_or(true));
        let closed = linked.find(|interface| {
            let features = xdp_features(interface.index).ok();
            interfaces.len() > 1 && !takes_redirected(features)
        });
        // Afterwards: a veth takes no frames because its other end has no program, which is what has to be said.
        self.check_ends(interfaces)?;
        match closed {
            Some(interface) => Err(Obstacle::NoRedirection {
                interface: interface.name.clone(),
            }),
            None => Ok(()),
        }
    }

    /// Takes the drivers' counters as they are, when the program has just been attached.
    pub fn begin(&mut self, interfaces: &[Interface], totals: Totals) {
        self.ports.clear();
        self.window = Window::from(totals);
        for (index, name) in interfaces.iter().flat_map(ports) {
            self.look(index, &name);
        }
    }

    /// Looks at the drivers' counters.
    pub fn look_at_counters(&mut self, interfaces: &[Interface]) -> Vec<Loss> {
        let mut losses = Vec::new();
        for interface in interfaces {
            for (index, name) in ports(interface) {
                let (frames, is_linked) = self.look(index, &name);
                losses.push(Loss {
                    interface: interface.index,
                    name,
                    frames,
                    is_linked,
                });
            }
        }
        losses
    }

    /// Decides whether native mode is worth these losses. A frame that was dropped is among those that the program had
    /// sent before the look began, or sends `until` now, so that its window has more time than that of the losses.
    ///
    /// # Errors
    ///
    /// The obstacle, if more was lost than native mode is worth.
    pub fn judge(
        &mut self,
        losses: &[Loss],
        before: Totals,
        until: Totals,
    ) -> Result<(), Obstacle> {
        // Without a link, frames are lost in every mode.
        for loss in losses.iter().filter(|loss| loss.is_linked) {
            let dropped = self.window.dropped.entry(loss.name.clone());
            *dropped.or_default() += loss.frames;
        }
        let Some((lost, obstacle)) = self.window.worst(until) else {
            self.window = Window::from(before);
            return Ok(());
        };
        match lost < EVIDENCE {
            true => Ok(()),
            false => Err(obstacle),
        }
    }

    /// Returns the frames that the driver has dropped since the last look, and whether there was a link
    /// in this time.
    fn look(&mut self, index: u32, name: &str) -> (u64, bool) {
        let port = self.ports.entry(index).or_default();
        let has_link = self.ethtool.has_link(name).unwrap_or(false);
        let is_linked = std::mem::replace(&mut port.had_link, has_link) && has_link;
        let values = (!port.drops.is_empty())
            .then(|| self.ethtool.counters(name, port.counters).ok())
            .flatten()
            .filter(|values| values.len() == port.counters);
        let Some(values) = values else {
            // The first look, or the driver has other queues now.
            *port = Port::new(&self.ethtool, name, has_link);
            return (0, is_linked);
        };
        let before = std::mem::replace(&mut port.dropped, sum(&values, &port.drops));
        (port.dropped.saturating_sub(before), is_linked)
    }
}

impl Window {
    fn from(since: Totals) -> Self {
        Self {
            since,
            dropped: HashMap::new(),
        }
    }

    /// Returns the obstacle that took most frames, and their number, if they are too many beside those sent.
    fn worst(&self, until: Totals) -> Option<(u64, Obstacle)> {
        let sent = until.sent.saturating_sub(self.since.sent);
        let without_headroom = until
            .without_headroom
            .saturating_sub(self.since.without_headroom);
        let dropped = self.dropped.iter().map(|(interface, &dropped)| {
            let interface = interface.clone();
            let obstacle = Obstacle::Drops {
                interface,
                dropped,
                sent,
            };
            (dropped, obstacle)
        });
        dropped
            .chain([(without_headroom, Obstacle::Headroom)])
            .filter(|&(lost, _)| is_too_much(lost, sent))
            .max_by_key(|&(lost, _)| lost)
    }
}

impl Port {
    fn new(ethtool: &Ethtool, name: &str, had_link: bool) -> Self {
        let names = ethtool.counter_names(name).unwrap_or_default();
        let drops: Vec<_> = (0..)
            .zip(&names)
            .filter(|(_, name)| counts_drops(name))
            .map(|(index, _)| index)
            .collect();
        let values = match drops.is_empty() {
            true => Ok(Vec::new()),
            false => ethtool.counters(name, names.len()),
        };
        Self {
            counters: names.len(),
            dropped: sum(&values.unwrap_or_default(), &drops),
            drops,
            had_link,
        }
    }
}

fn sum(values: &[u64], indices: &[usize]) -> u64 {
    indices
        .iter()
        .filter_map(|&index| values.get(index))
        .fold(0, |sum: u64, value| sum.wrapping_add(*value))
}

/// Returns index and name of the interfaces that frames leave by.
pub fn ports(interface: &Interface) -> Vec<(u32, String)> {
    if interface.ports.is_empty() {
        return vec![(interface.index, interface.name.clone())];
    }
    let name = |index| if_indextoname(index).ok()?.into_string().ok();
    let ports = interface.ports.iter();
    ports
        .filter_map(|&port| Some((port, name(port)?)))
        .collect()
}

/// Whether an interface is one end of a veth whose other end has no native program. What is not known
/// is no obstacle.
fn is_bare(driver: Option<&str>, has_segmentation: Option<bool>) -> bool {
    driver == Some(VETH) && has_segmentation == Some(true)
}

/// Whether redirected frames leave by the interface; kernels before Linux 6.3 do not tell.
fn takes_redirected(features: Option<XdpFeatures>) -> bool {
    features.is_none_or(XdpFeatures::takes_redirected)
}

/// Whether so many lost frames are too many beside those sent.
fn is_too_much(lost: u64, sent: u64) -> bool {
    lost > 0 && lost.saturating_mul(TOLERANCE) >= sent
}

/// Whether a driver's counter of this name counts frames that a program sent and the driver dropped.
fn counts_drops(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let has = |parts: &[&str]| parts.iter().any(|part| name.contains(part));
    has(&["xdp"]) && has(&["tx", "xmit", "redirect"]) && has(&["err", "drop", "full"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_drops_are_recognised_by_name() {
        for name in [
            "rx_queue_0_xdp_tx_errors",
            "tx_queue_3_xdp_xmit_errors",
            "rx0_xdp_tx_drops",
            "rx7_xdp_tx_full",
            "tx_xdp_err",
            "tx_xdp_xmit_errors[0]",
            "rx_xdp_redirect_errors[4]",
        ] {
            assert!(counts_drops(name), "{name}");
        }
        for name in [
            "rx_queue_0_xdp_packets",
            "rx_queue_0_xdp_drops",
            "rx_queue_0_xdp_tx",
            "rx_queue_0_drops",
            "tx_errors",
            "rx_xdp_tx_xmit",
            "xdp_aborted",
        ] {
            assert!(!counts_drops(name), "{name}");
        }
    }

    #[test]
    fn only_a_veth_with_a_bare_end_is_bare() {
        assert!(is_bare(Some("veth"), Some(true)));
        assert!(!is_bare(Some("veth"), Some(false)));
        assert!(!is_bare(Some("veth"), None));
        assert!(!is_bare(Some("virtio_net"), Some(true)));
        assert!(!is_bare(None, Some(true)));
    }

    #[test]
    fn drivers_with_trouble_are_known() {
        assert!(trouble_of("gve").is_some_and(|trouble| trouble.contains("gve")));
        assert_eq!(trouble_of("veth"), None);
        assert_eq!(known_trouble("no-such"), None);
    }

    #[test]
    fn a_few_lost_frames_among_many_are_borne() {
        assert!(!is_too_much(0, 0));
        assert!(!is_too_much(1, 5));
        assert!(is_too_much(1, 4));
        assert!(is_too_much(1, 0));
        assert!(is_too_much(u64::MAX, u64::MAX));
    }

    fn sent(sent: u64) -> Totals {
        Totals {
            sent,
            without_headroom: 0,
        }
    }

    fn loss(frames: u64) -> Loss {
        Loss {
            interface: 1,
            name: "port".to_owned(),
            frames,
            is_linked: true,
        }
    }

    fn drops(dropped: u64, sent: u64) -> Result<(), Obstacle> {
        Err(Obstacle::Drops {
            interface: "port".to_owned(),
            dropped,
            sent,
        })
    }

    #[test]
    fn packets_without_headroom_are_an_obstacle_if_they_are_many() {
        let mut delivery = Delivery::open().unwrap();
        let mut totals = Totals::default();
        delivery.begin(&[], totals);
        for (sent, without_headroom, expected) in [
            (0, 0, Ok(())),
            (100, 0, Ok(())),
            (100, 24, Ok(())),
            (100, 25, Err(Obstacle::Headroom)),
            (1000, 0, Ok(())),
            (0, 15, Ok(())),
            (0, 1, Err(Obstacle::Headroom)),
            (1000, 0, Ok(())),
            (0, 0, Ok(())),
        ] {
            totals.sent += sent;
            totals.without_headroom += without_headroom;
            let found = delivery.judge(&[], totals, totals);
            assert_eq!(found, expected, "{without_headroom} of {sent}");
        }
    }

    #[test]
    fn a_loss_is_judged_with_what_follows() {
        let mut delivery = Delivery::open().unwrap();
        let mut total = 0;
        delivery.begin(&[], sent(total));
        for (sent_now, lost, expected) in [
            // The only frame of its second.
            (1, 1, Ok(())),
            // Together with the first, 2 of 9 are few enough, and forgotten.
            (8, 1, Ok(())),
            (4, 1, Ok(())),
            (0, 0, Ok(())),
            // A driver that drops all of a slow flow.
            (7, 7, Ok(())),
            (7, 7, Ok(())),
            (1, 1, drops(16, 19)),
        ] {
            total += sent_now;
            let found = delivery.judge(&[loss(lost)], sent(total), sent(total));
            assert_eq!(found, expected, "{lost} of {sent_now}");
        }
    }

    #[test]
    fn what_is_lost_without_a_link_is_no_obstacle() {
        let mut delivery = Delivery::open().unwrap();
        delivery.begin(&[], sent(0));
        let unlinked = Loss {
            is_linked: false,
            ..loss(1000)
        };
        assert_eq!(delivery.judge(&[unlinked], sent(1000), sent(1000)), Ok(()));
    }

    #[test]
    fn the_driver_that_drops_most_is_named() {
        let mut delivery = Delivery::open().unwrap();
        delivery.begin(&[], sent(0));
        let other = Loss {
            name: "other".to_owned(),
            ..loss(30)
        };
        let losses = [loss(50), other];
        let found = delivery.judge(&losses, sent(100), sent(100));
        assert_eq!(found, drops(50, 100));
    }

    #[test]
    fn frames_that_are_sent_during_a_look_count() {
        let mut delivery = Delivery::open().unwrap();
        delivery.begin(&[], sent(0));
        // Nothing before the look, and 16 of a hundred while it takes place.
        let found = delivery.judge(&[loss(16)], sent(0), sent(100));
        assert_eq!(found, Ok(()));
        // 16 of the hundred may be counted by the next look only.
        let found = delivery.judge(&[loss(16)], sent(100), sent(100));
        assert_eq!(found, Ok(()));
        let found = delivery.judge(&[loss(16)], sent(100), sent(100));
        assert_eq!(found, drops(16, 0));
    }

    #[test]
    fn old_kernels_that_do_not_tell_are_no_obstacle() {
        assert!(takes_redirected(None));
    }
}
