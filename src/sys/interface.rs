//! Names and numbers of network interfaces; the kernel uses the numbers. IPv6 addresses of a link are written with
//! the name and dialled with the number.

use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

/// `None`: there is no interface with that name.
pub fn number(name: &str) -> Option<u32> {
    let (kind, flags) = (SocketType::DGRAM, SocketFlags::CLOEXEC);
    // Any available address family: the question is the same.
    let mut families = [AddressFamily::INET6, AddressFamily::UNIX].into_iter();
    let socket = families.find_map(|family| socket_with(family, kind, flags, None).ok())?;
    name_to_index(socket, name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_machine_has_a_loopback() {
        assert!(number("lo").is_some_and(|number| number > 0));
        assert_eq!(number("no-such-one"), None);
    }
}
