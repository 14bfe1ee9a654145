//! The handover from one process of the daemon to the next, under a service manager and without one.

mod relay;
