//! The plan and the reconciler in virtual time, against a model of the kernel's tables.

mod histories;
mod kernel;
mod rules;
