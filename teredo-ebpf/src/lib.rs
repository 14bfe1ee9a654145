//! Empty: other crates depend on this library only so that cargo notices when the program changes.
#![no_std]
