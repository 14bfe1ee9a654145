//! Network interfaces as the kernel tells about them.

use std::io;

use rtnetlink::{
    packet_core::{NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload},
    packet_route::{
        RouteNetlinkMessage,
        link::{LinkAttribute, LinkLayerType, LinkMessage, LinkXdp, XdpAttached},
    },
    sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE},
};

use super::{bond, error::Error, mode::Mode};

/// An XDP program on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// How it is attached.
    pub mode: Mode,
    /// Its number in the kernel.
    pub program: u32,
}

/// An Ethernet interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name now.
    pub name: String,
    /// Its number, which it keeps when renamed.
    pub index: u32,
    /// Its Ethernet address.
    pub station: [u8; 6],
    /// The XDP program that it has.
    pub program: Option<Attachment>,
    /// Indices of the ports of a bond: the program runs there, natively, on frames to the bond's
    /// address. Empty for all other interfaces.
    pub ports: Vec<u32>,
    /// Whether its frames without VLAN tags are for the program. Otherwise only those of VLAN interfaces are.
    pub is_served: bool,
}

impl Interface {
    /// The interface with this name.
    ///
    /// # Errors
    ///
    /// [`Error::NoInterface`], [`Error::NotEthernet`], or [`Error::Netlink`].
    pub fn named(name: &str) -> Result<Self, Error> {
        let mut request = LinkMessage::default();
        request
            .attributes
            .push(LinkAttribute::IfName(name.to_owned()));
        Self::query(request, name)
    }

    /// The interface with this number; `name` is for messages only.
    ///
    /// # Errors
    ///
    /// As [`Self::named`].
    pub fn numbered(index: u32, name: &str) -> Result<Self, Error> {
        let mut request = LinkMessage::default();
        request.header.index = index;
        Self::query(request, name)
    }

    /// As it is now; unchanged if the kernel does not tell.
    #[must_use]
    pub fn refreshed(&self) -> Self {
        match Self::numbered(self.index, &self.name) {
            Ok(found) => Self {
                is_served: self.is_served,
                ..found
            },
            Err(_) => self.clone(),
        }
    }

    fn query(request: LinkMessage, name: &str) -> Result<Self, Error> {
        let link = ask(request).map_err(|source| match source.raw_os_error() {
            // ERANGE: the name is longer than any interface's.
            Some(libc::ENODEV | libc::ERANGE | libc::EINVAL) => Error::NoInterface {
                name: name.to_owned(),
            },
            _ => Error::Netlink {
                name: name.to_owned(),
                source,
            },
        })?;
        Self::read(&link).ok_or_else(|| Error::NotEthernet {
            name: name.to_owned(),
        })
    }

    fn read(link: &LinkMessage) -> Option<Self> {
        if link.header.link_layer_type != LinkLayerType::Ether {
            return None;
        }
        let mut name = None;
        let mut station = None;
        let mut program = None;
        for attribute in &link.attributes {
            match attribute {
                LinkAttribute::IfName(text) => name = Some(text.clone()),
                LinkAttribute::Address(octets) => station = octets.as_slice().try_into().ok(),
                LinkAttribute::Xdp(attributes) => program = attachment(attributes),
                _ => {}
            }
        }
        let name = name?;
        Some(Self {
            ports: bond::ports(&name),
            name,
            index: link.header.index,
            station: station?,
            program,
            is_served: true,
        })
    }
}

fn attachment(attributes: &[LinkXdp]) -> Option<Attachment> {
    let number = |wanted: fn(&LinkXdp) -> Option<u32>| attributes.iter().find_map(wanted);
    let native = number(|attribute| match attribute {
        LinkXdp::DrvProgId(id) | LinkXdp::HwProgId(id) => Some(*id),
        _ => None,
    });
    let generic = number(|attribute| match attribute {
        LinkXdp::SkbProgId(id) => Some(*id),
        _ => None,
    });
    if let Some(program) = native.or(generic) {
        let mode = if native.is_some() {
            Mode::Native
        } else {
            Mode::Generic
        };
        return Some(Attachment { mode, program });
    }
    let program = number(|attribute| match attribute {
        LinkXdp::ProgId(id) => Some(*id),
        _ => None,
    })?;
    let generic = attributes.contains(&LinkXdp::Attached(XdpAttached::SocketBuffer));
    let mode = if generic { Mode::Generic } else { Mode::Native };
    Some(Attachment { mode, program })
}

/// One question, one answer.
fn ask(request: LinkMessage) -> io::Result<LinkMessage> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST;
    let payload = NetlinkPayload::from(RouteNetlinkMessage::GetLink(request));
    let mut message = NetlinkMessage::new(header, payload);
    message.finalize();
    let mut buffer = vec![0; message.buffer_len()];
    message.serialize(&mut buffer);

    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(&buffer, 0)?;
    let (answer, _) = socket.recv_from_full()?;
    let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    match answer.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => Ok(link),
        NetlinkPayload::Error(error) => Err(error.to_io()),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}
