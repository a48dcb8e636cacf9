"""Which documents were seen: what deduplication remembers of a corpus that outgrows memory."""

import array


class HashSet:
    """The first 64 bits of hashes, in 16 to 32 bytes each where Python's set takes 100: corpora outgrow memory.

    Among ten million documents, the chance that any is taken for another is 3 in a million.
    """

    def __init__(self):
        self.slots, self.count = array.array("Q", bytes(8 * 2**12)), 0

    def add(self, digest: bytes) -> bool:
        """Whether it is new."""
        if 2 * self.count >= len(self.slots):
            old, self.slots, self.count = self.slots, array.array("Q", bytes(16 * len(self.slots))), 0
            for value in filter(None, old):
                self._insert(value)
        return self._insert(int.from_bytes(digest[:8], "big") or 1)

    def _insert(self, value: int) -> bool:
        mask = len(self.slots) - 1
        slot = value & mask
        while self.slots[slot]:
            if self.slots[slot] == value:
                return False
            slot = (slot + 1) & mask
        self.slots[slot] = value
        self.count += 1
        return True
