//! Teredo.
