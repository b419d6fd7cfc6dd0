//! Which connections count as coming from the same client.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A place on the Internet that its holder can have any number of connections from: an IPv4 address, or an IPv6 /64,
/// which is the least a customer gets (RFC 6177).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Network {
    /// One address.
    V4(Ipv4Addr),
    /// The first 64 bits.
    V6(u64),
}

impl Network {
    /// Where `address` belongs; none for addresses that are not of the Internet: this machine's own, and those of private
    /// networks. What connects from there is a proxy, a load balancer or a gateway, behind which are many clients, or
    /// somebody who could do worse.
    pub fn of(address: IpAddr) -> Option<Self> {
        match address.to_canonical() {
            IpAddr::V4(address) if is_internal_v4(address) => None,
            IpAddr::V4(address) => Some(Self::V4(address)),
            IpAddr::V6(address) if is_internal_v6(address) => None,
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                Some(Self::V6([a, b, c, d].into_iter().fold(0, |bits, part| bits << 16 | u64::from(part))))
            }
        }
    }
}

/// RFC 1918, RFC 3927, and RFC 6598 (100.64.0.0/10), where some clouds have their load balancers.
fn is_internal_v4(address: Ipv4Addr) -> bool {
    let [a, b, ..] = address.octets();
    address.is_loopback() || address.is_private() || address.is_link_local() || (a == 100 && b & 0xc0 == 64)
}

/// RFC 4193 and RFC 4291 §2.5.6.
fn is_internal_v6(address: Ipv6Addr) -> bool {
    address.is_loopback() || address.is_unique_local() || address.is_unicast_link_local()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(address: &str) -> Option<Network> {
        Network::of(address.parse().expect("an address"))
    }

    #[test]
    fn counts_ipv4_by_the_address_and_ipv6_by_the_first_64_bits() {
        assert_eq!(of("192.0.2.1"), Some(Network::V4(Ipv4Addr::new(192, 0, 2, 1))));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_eq!(of("2001:db8:1:2::1"), Some(Network::V6(0x2001_0db8_0001_0002)));
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
    }

    /// RFC 4291 §2.5.5.2: how a dual-stack socket shows IPv4 clients. By their /64 they would all be one.
    #[test]
    fn counts_mapped_ipv4_as_ipv4() {
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_eq!(of("::ffff:127.0.0.1"), None);
    }

    #[test]
    fn does_not_count_what_is_not_of_the_internet() {
        let internal =
            ["127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.0.1", "100.64.0.1", "100.127.0.1"];
        for address in internal.into_iter().chain(["::1", "fd00::1", "fe80::1"]) {
            assert_eq!(of(address), None, "{address}");
        }
        for address in ["100.63.0.1", "100.128.0.1", "172.32.0.1", "2001:db8::1"] {
            assert!(of(address).is_some(), "{address}");
        }
    }
}
