//! The one place where balancing draws random numbers: a generator per thread, quick, and not for secrets.

/// 64 random bits.
pub fn word() -> u64 {
    fastrand::u64(..)
}

/// True with the probability `part / whole`.
pub fn accepts((part, whole): (u32, u32)) -> bool {
    part >= whole || fastrand::u32(..whole) < part
}
