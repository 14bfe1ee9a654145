//! Measurements in virtual time, behind modelled NATs.

mod kinds;
mod lifetime;
mod server;
mod world;
