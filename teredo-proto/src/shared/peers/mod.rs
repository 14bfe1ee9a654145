//! The engine for peers that relay and client share: the bounded table of recent peers (RFC 4380
//! section 5.2) with their deadlines, the bubbles sent to them, the packets that wait for them, and
//! the rules by which they gain trust, are asked for a sign of life, and are forgotten.
//!
//! The engine decides; the machine acts. [`Peers`] returns the [`Chore`] or the [`Step`] of a
//! procedure that is due, and the machine sends the bubbles, drops the packets and reports the
//! events. [`Timing`] and [`RoleState`] hold all that differs between relay and client.
//!
//! ```text
//!                      trust                         silence >= lifetime + grace
//!  insert ─▶ untrusted ──────▶ trusted ───────────────────────────────▶ untrusted ─▶ removed
//!               │  ▲              │  ▲
//!      enqueue  ▼  │ give up      ▼  │ answer          (silence >= refresh_after, still sent to)
//!             procedure         procedure
//! ```

mod accounts;
mod history;
mod peer;
mod procedure;
mod queue;
mod saved;
mod shares;
mod table;
mod trust;

#[cfg(test)]
mod tests;

pub use accounts::PeerTraffic;
pub use history::{GAP, Histories, History, Patience};
#[cfg(test)]
pub use history::{MAX_UNANSWERED, WINDOW};
pub use peer::{Peer, Pending, RoleState};
pub use procedure::{NotQueued, Step};
pub use queue::{Bounds, Budget, Full, OVERHEAD, Queue, network};
pub use saved::{SavedPeer, SavedQueue};
pub use table::{PeerIndex, Peers, max_untrusted};
pub use trust::{Chore, Timing};
