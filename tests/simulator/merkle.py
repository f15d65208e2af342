"""A Merkle tree as RFC 6962 defines it, word for word and slow: what the fast one is held against.

Nothing here is shared with `modelward.trust.merkle`, and every function is the RFC's own recursion
over the list of entries.
"""

import hashlib


def mth(entries: list[bytes]) -> bytes:
    """MTH(D[n]), RFC 6962 2.1."""
    if not entries:
        return hashlib.sha256(b"").digest()
    if len(entries) == 1:
        return hashlib.sha256(b"\x00" + entries[0]).digest()
    k = split(len(entries))
    return hashlib.sha256(b"\x01" + mth(entries[:k]) + mth(entries[k:])).digest()


def path(m: int, entries: list[bytes]) -> list[bytes]:
    """PATH(m, D[n]), RFC 6962 2.1.1."""
    if len(entries) == 1:
        return []
    k = split(len(entries))
    if m < k:
        return [*path(m, entries[:k]), mth(entries[k:])]
    return [*path(m - k, entries[k:]), mth(entries[:k])]


def proof(m: int, entries: list[bytes]) -> list[bytes]:
    """PROOF(m, D[n]), RFC 6962 2.1.2, for 0 < m <= n."""
    return subproof(m, entries, whole=True)


def subproof(m: int, entries: list[bytes], *, whole: bool) -> list[bytes]:
    """SUBPROOF(m, D[n], b), RFC 6962 2.1.2."""
    if m == len(entries):
        return [] if whole else [mth(entries)]
    k = split(len(entries))
    if m <= k:
        return [*subproof(m, entries[:k], whole=whole), mth(entries[k:])]
    return [*subproof(m - k, entries[k:], whole=False), mth(entries[:k])]


def split(n: int) -> int:
    """The largest power of two smaller than n."""
    k = 1
    while k * 2 < n:
        k *= 2
    return k


def tile(entries: list[bytes], level: int, index: int) -> bytes:
    """A tile's bytes, as tlog-tiles defines them: hashes of 256 full subtrees, or fewer."""
    span = 256**level
    hashes = []
    for i in range(256):
        begin = (index * 256 + i) * span
        if begin + span <= len(entries):
            hashes.append(mth(entries[begin : begin + span]))
    return b"".join(hashes)
