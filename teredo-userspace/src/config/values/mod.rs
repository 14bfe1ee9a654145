//! The types of values and their (de)serialisation. The sentences about wrong values are in
//! [`super::keys`]; the messages here are for programs that deserialise without a file.

mod forms;
mod permitted;
mod types;

pub use self::{forms::*, permitted::*, types::*};
