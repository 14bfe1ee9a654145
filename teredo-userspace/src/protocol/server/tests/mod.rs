mod forward;
#[allow(dead_code)]
mod harness;
mod solicitation;
