//! The network laboratory: what the end-to-end tests, the scene (`cargo xtask run`) and the
//! benchmarks are built from. Nothing in it touches a network outside its own namespaces.

pub mod bench;
pub mod fixture;
pub mod lab;
pub mod simulation;
