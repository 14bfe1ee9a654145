//! The rules of the filter.

use std::{collections::BTreeMap, env::consts::ARCH};

use nix::libc;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};

use super::calls::{ALLOWED, FAMILIES, NAMESPACES, TERMINAL};

/// The rules of the calls that have some, by number; without a rule, a call is always let through.
type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Returns the programs of the filter: that which says that a call does not exist, and that which refuses.
pub fn build() -> Result<[BpfProgram; 2], BackendError> {
    let architecture = TargetArch::try_from(ARCH)?;
    let compile = |rules, otherwise, matching| -> Result<BpfProgram, BackendError> {
        SeccompFilter::new(rules, otherwise, matching, architecture)?.try_into()
    };
    // Its flags are in memory, where a filter cannot read them. C libraries use `clone` where the kernel
    // does not have it, but not where it is forbidden.
    let absent = Rules::from([(libc::SYS_clone3, Vec::new())]);
    Ok([
        compile(
            absent,
            SeccompAction::Allow,
            SeccompAction::Errno(libc::ENOSYS as u32),
        )?,
        compile(
            rules()?,
            SeccompAction::Errno(libc::EPERM as u32),
            SeccompAction::Allow,
        )?,
    ])
}

fn rules() -> Result<Rules, BackendError> {
    let mut rules: Rules = ALLOWED.iter().map(|&call| (call, Vec::new())).collect();
    // Passes to the filter that says that there is none.
    rules.insert(libc::SYS_clone3, Vec::new());
    let families = FAMILIES.iter().map(|&family| rule(&[is(0, family)?]));
    rules.insert(libc::SYS_socket, families.collect::<Result<_, _>>()?);
    rules.insert(libc::SYS_clone, vec![rule(&[lacks(0, NAMESPACES)?])?]);
    let [first, second] = TERMINAL;
    rules.insert(
        libc::SYS_ioctl,
        vec![rule(&[is_not(1, first)?, is_not(1, second)?])?],
    );
    // No memory is writable and executable, or becomes executable.
    let (write, execute) = (libc::PROT_WRITE as u64, libc::PROT_EXEC as u64);
    rules.insert(
        libc::SYS_mmap,
        vec![rule(&[lacks(2, write)?])?, rule(&[lacks(2, execute)?])?],
    );
    rules.insert(libc::SYS_mprotect, vec![rule(&[lacks(2, execute)?])?]);
    Ok(rules)
}

fn rule(conditions: &[SeccompCondition]) -> Result<SeccompRule, BackendError> {
    SeccompRule::new(conditions.to_vec())
}

/// The kernel reads 32 bits of the arguments that are compared.
fn condition(
    argument: u8,
    operator: SeccompCmpOp,
    value: u64,
) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)
}

fn is(argument: u8, value: u64) -> Result<SeccompCondition, BackendError> {
    condition(argument, SeccompCmpOp::Eq, value)
}

fn is_not(argument: u8, value: u64) -> Result<SeccompCondition, BackendError> {
    condition(argument, SeccompCmpOp::Ne, value)
}

/// None of these bits is set.
fn lacks(argument: u8, bits: u64) -> Result<SeccompCondition, BackendError> {
    condition(argument, SeccompCmpOp::MaskedEq(bits), 0)
}
