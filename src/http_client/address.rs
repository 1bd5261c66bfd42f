//! Tells public addresses from those of private networks and special purposes.

use std::net::{IpAddr, Ipv4Addr};

/// Whether an address is public: in none of IANA's special-purpose address registries (RFC 6890), and not another form of
/// an IPv4 address that is in one.
pub fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => match address.segments() {
            // NAT64 (RFC 6052): the last half is the IPv4 address.
            [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
                is_public_v4((u32::from(high) << 16 | u32::from(low)).into())
            }
            [0x2001, second, ..] if second < 0x200 => false, // IETF protocols, Teredo among them
            [0x2001, 0xdb8, ..] => false,                    // documentation
            [0x2002, ..] => false,                           // 6to4, which holds an IPv4 address
            [0x3fff, second, ..] if second < 0x1000 => false, // documentation
            [first, ..] => first & 0xe000 == 0x2000,         // global unicast
        },
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let is_special = match address.octets() {
        [0 | 10 | 127 | 224..=255, ..] => true, // this network, private, loopback, multicast and reserved
        [100, second, ..] => (64..128).contains(&second), // carrier-grade NAT
        [169, 254, ..] => true,                 // link-local
        [172, second, ..] => (16..32).contains(&second), // private
        [192, 0, 0 | 2, _] | [192, 88, 99, _] | [192, 168, ..] => true, // protocols, documentation, 6to4, private
        [198, 18 | 19, ..] | [198, 51, 100, _] | [203, 0, 113, _] => true, // benchmarks, documentation
        _ => false,
    };
    !is_special
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_purpose_addresses_are_not_public() {
        for public in [
            "8.8.8.8",
            "100.63.0.1",
            "100.128.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "223.255.255.255",
            "2606:4700::1111",
            "2a00::1",
            "64:ff9b::8.8.8.8",
            "::ffff:8.8.8.8",
        ] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
        for special in [
            "0.0.0.0",
            "0.1.2.3",
            "10.1.2.3",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.192",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.0.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.9",
            "224.0.0.1",
            "239.1.1.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::127.0.0.1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::1",
            "100::1",
            "fc00::1",
            "fd12:3456::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::1",
            "3fff::1",
            "4000::1",
        ] {
            assert!(!is_public(special.parse().unwrap()), "{special}");
        }
    }
}
