//! Measurements in virtual time, behind modelled NATs.

mod kinds;
mod lifetime;
mod relay;
mod server;
mod world;
