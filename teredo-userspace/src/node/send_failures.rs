//! Packets that a role handed to the kernel in vain.

/// Packets of the relay or the client that the kernel did not accept.
#[derive(Clone, Copy, Debug, Default)]
pub struct SendFailures {
    /// IPv6 packets from the tunnel, not accepted by the TUN interface.
    pub decapsulated: u64,
    /// Datagrams into the tunnel, not accepted by the UDP socket.
    pub encapsulated: u64,
}
