"""Which addresses the API may connect to on somebody else's behalf (server-side request forgery, OWASP)."""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Network = IPv4Network | IPv6Network

_GLOBAL_UNICAST = ip_network("2000::/3")  # RFC 4291; of the rest nothing is routed between networks
_COMPATIBLE = ip_network("::/96")
_NAT64 = ip_network("64:ff9b::/96")  # RFC 6052


def is_reachable(address: str, private: Sequence[Network]) -> bool:
    """Whether it is public, or in one of the private networks that may be reached.

    Not public are loopback, link-local (where clouds keep their metadata), private, shared (carrier-grade NAT),
    multicast and reserved addresses; and those of IPv6 that stand for such a one of IPv4.
    """
    found = ip_address(address.partition("%")[0])
    meant = _meant_by(found) if isinstance(found, IPv6Address) else found
    return any(meant in network for network in private) or _is_public(meant)


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    routed = address.is_global and not address.is_multicast
    return routed and (isinstance(address, IPv4Address) or address in _GLOBAL_UNICAST)


def _meant_by(address: IPv6Address) -> IPv4Address | IPv6Address:
    """The address of IPv4 that it stands for: mapped, compatible, translated (NAT64), 6to4, Teredo; or itself."""
    if (address in _COMPATIBLE and int(address) > 1) or address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else address)
