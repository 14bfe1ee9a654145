//! Each requirement that concerns the relay, by its number.

mod accounts;
mod bubbles;
mod copies;
mod dual;
mod fast_path;
mod harness;
mod host_specific;
mod peers;
mod proof;
mod properties;
mod reception;
mod transmission;
