"""What others would have kept on the same trace: plain LRU, and the optimum, which sees ahead."""

import bisect
import random
from collections import OrderedDict, defaultdict
from collections.abc import Sequence


def zipf(names: Sequence[str], calls: int, seed: int, s: float = 1.0) -> list[str]:
    """Draw calls: the model of rank r is called in proportion to ``1 / r ** s``."""
    dice = random.Random(seed)
    ranked = dice.sample(names, len(names))
    weights = [1 / rank**s for rank in range(1, len(ranked) + 1)]
    return dice.choices(ranked, weights, k=calls)


def lru_hits(trace: Sequence[str], slots: int) -> int:
    """Count the calls that meet a model among the ``slots`` that were used last."""
    kept: OrderedDict[str, None] = OrderedDict()
    hits = 0
    for name in trace:
        if name in kept:
            hits += 1
            kept.move_to_end(name)
            continue
        if len(kept) >= slots:
            kept.popitem(last=False)
        kept[name] = None
    return hits


def belady_hits(trace: Sequence[str], slots: int) -> int:
    """Count the hits of who evicts what is needed again latest: no rule has more.

    Every call has to be answered from a slot, so a model that is called is always kept.
    """
    calls: dict[str, list[int]] = defaultdict(list)
    for at, name in enumerate(trace):
        calls[name].append(at)
    never = len(trace)
    kept: dict[str, int] = {}
    hits = 0
    for at, name in enumerate(trace):
        hits += name in kept
        if name not in kept and len(kept) >= slots:
            del kept[max(kept, key=kept.__getitem__)]
        later = bisect.bisect_right(calls[name], at)
        kept[name] = calls[name][later] if later < len(calls[name]) else never
    return hits
