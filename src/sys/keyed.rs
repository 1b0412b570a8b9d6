//! The hash of tables whose keys clients choose: cheap, and with keys of this process's own. The standard library
//! draws them from the kernel itself; ahash would open /dev/urandom, which an empty root does not have.

use std::hash::{BuildHasher, RandomState};

#[derive(Clone)]
pub struct Keyed(ahash::RandomState);

impl Default for Keyed {
    fn default() -> Self {
        let random = RandomState::new();
        let key = |number: u64| random.hash_one(number);
        Keyed(ahash::RandomState::with_seeds(key(0), key(1), key(2), key(3)))
    }
}

impl BuildHasher for Keyed {
    type Hasher = ahash::AHasher;

    fn build_hasher(&self) -> ahash::AHasher {
        self.0.build_hasher()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_knows_where_a_key_falls() {
        let (one, other) = (Keyed::default(), Keyed::default());
        assert_eq!(one.hash_one("a"), one.clone().hash_one("a"));
        assert_ne!(one.hash_one("a"), other.hash_one("a"));
    }
}
