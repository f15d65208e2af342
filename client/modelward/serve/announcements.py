"""What devices say by multicast DNS, and the question that makes them say it (takes zeroconf).

Zeroconf can browse by itself, but then looks up each name that a stranger makes up, keeps all of
them in memory, and forgets whoever a stranger says is gone.
"""

from ipaddress import IPv4Address

from zeroconf import (
    DNSAddress,
    DNSOutgoing,
    DNSPointer,
    DNSQuestion,
    DNSService,
    RecordUpdate,
    RecordUpdateListener,
    Zeroconf,
)

from modelward.serve.heard import Heard

SERVICE = "_modelward._tcp.local."
_QUESTION, _PTR, _IN = 0, 12, 1  # RFC 1035, 4.1.1, 3.2.2 and 3.2.4


class Listener(RecordUpdateListener):
    """Takes the announcements from what zeroconf hears.

    Args:
        heard: Is told of who is near.
    """

    def __init__(self, heard: Heard) -> None:
        self._heard = heard

    def async_update_records(self, zc: Zeroconf, now: float, records: list[RecordUpdate]) -> None:
        """Take what one packet says, which zeroconf passes in its own thread.

        Devices say all of it in one: name, port and address. What is not in it is not looked up,
        so that strangers make no work; nor in zeroconf's cache, from which they can push others.
        """
        del zc
        said = [each.new for each in records if not each.new.is_expired(now)]
        names, hosts = set[str](), dict[str, IPv4Address]()
        for record in said:
            if isinstance(record, DNSPointer) and record.key == SERVICE:
                names.add(record.alias.lower())
            elif isinstance(record, DNSAddress) and len(record.address) == 4:  # noqa: PLR2004 - IPv4
                address = IPv4Address(record.address)
                if self._heard.is_near(address):
                    hosts.setdefault(record.key, address)
        for record in said:
            if isinstance(record, DNSService) and record.key in names:
                found = hosts.get(record.server_key)
                if found:
                    self._heard.note(found, record.port)


def question() -> DNSOutgoing:
    """Return the question who is there, which all answer."""
    out = DNSOutgoing(_QUESTION)
    out.add_question(DNSQuestion(SERVICE, _PTR, _IN))
    return out
