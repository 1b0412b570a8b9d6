//! The one place where balancing draws random numbers: a generator per thread, quick, and never a secret.

/// 64 random bits.
pub fn word() -> u64 {
    fastrand::u64(..)
}

/// A number below `end`; 0 if `end` is 0.
pub fn below(end: usize) -> usize {
    if end == 0 { 0 } else { fastrand::usize(..end) }
}

/// True with the probability `part / whole`.
pub fn accepts((part, whole): (u32, u32)) -> bool {
    part >= whole || fastrand::u32(..whole) < part
}
