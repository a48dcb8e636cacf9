"""Batches of examples of like length: hardly any padding, and still a function of (seed, step)."""

import numpy as np

from toolkit.data import counter

WINDOW = 50
"""Batches among which examples are sorted by length: as many as transformers' LengthGroupedSampler takes."""


class LengthBuckets:
    """Every WINDOW batches, or a quarter of an epoch where that is less, the examples drawn for them are sorted by
    length, cut into batches, and the batches shuffled. Which examples these are, and that each comes once an epoch, the
    draw decides as it would without.
    """

    def __init__(self, lengths: np.ndarray, batch_size: int, seed: int):
        self.lengths, self.batch_size, self.seed = lengths, batch_size, seed
        # A quarter, as there: sorted whole, a small set would give the same batches every epoch.
        self.window = min(max(len(lengths) // (4 * max(batch_size, 1)), 1), WINDOW)
        self._at_hand: tuple[int, np.ndarray | None] = (-1, None)

    def examples(self, step: int) -> np.ndarray:
        """(batch_size,) which examples the global batch of a step holds."""
        number, place = divmod(step, self.window)
        return self._of_window(number)[place]

    def _of_window(self, number: int) -> np.ndarray:
        """(window, batch_size) the examples of a window of batches; the last one is kept."""
        at_hand, examples = self._at_hand
        if at_hand != number:
            drawn = number * self.window * self.batch_size + np.arange(self.window * self.batch_size)
            epochs, index = counter.epoch_order(self.seed, drawn, len(self.lengths))
            lengths = self.lengths[index]
            # Where an epoch ends inside the window, lengths rise and then fall: an example that comes in both epochs is
            # not in one batch twice because it is as long as itself, and the batch across the seam is of like lengths.
            order = np.lexsort((np.where((epochs - epochs[0]) % 2, -lengths, lengths), epochs))
            shuffled = counter.permute(counter.key(self.seed, 0xB0C4E7, number), np.arange(self.window), self.window)
            examples = index[order].reshape(self.window, self.batch_size)[shuffled]
            self._at_hand = (number, examples)
        return examples
