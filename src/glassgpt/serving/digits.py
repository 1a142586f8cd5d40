"""The net that reads digits, for a page that runs it itself: its weights, the digits held out, and the map of them.

It is trained when it is first asked for, which takes a second and some more while scikit-learn is first loaded, in a
thread of its own; after that it is there.
"""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
from starlette.responses import Response

from glassgpt.errors import UsageError
from glassgpt.serving.asked import Asked
from glassgpt.serving.generation import LARGEST_SEED
from glassgpt.serving.refusals import Cancelled, Refusal
from glassgpt.serving.tensors import as_float32, tensor_bytes
from glassgpt.serving.worker import Job, Worker

MOST_KEPT = 8  # nets, each of some 50 KB


class Digits:
    """The nets by the seed that their training began with."""

    def __init__(self) -> None:
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        self._worker: Worker | None = None
        self._is_closed = False

    def asked(self, asked: Asked) -> Job:
        """The job that makes the answer, or finds it."""
        seed = asked.whole("seed", 0, LARGEST_SEED, 0)
        asked.nothing_else()
        if self._is_closed:
            raise Cancelled("no net is trained any more")
        self._worker = self._worker or Worker("the net that reads digits")
        return self._worker.submit(lambda: Response(self._net(seed), media_type="application/octet-stream"))

    def _net(self, seed: int) -> bytes:
        if seed not in self._kept:
            self._kept[seed] = digits_bytes(seed)
            while len(self._kept) > MOST_KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(seed)
        return self._kept[seed]

    def close(self) -> None:
        """Give up what is under way. It is not waited for."""
        self._is_closed = True
        if self._worker is not None:
            self._worker.close()

    def wait_until_closed(self) -> None:
        if self._worker is not None:
            self._worker.wait_until_closed()


def digits_bytes(seed: int) -> bytes:
    """The net of a seed: `layers.N.weight` and `layers.N.bias`, float32; `images`, uint8 (n, 8, 8), from 0 for paper to
    `darkest` for ink, and `labels`, uint8 (n,), of the digits held out; `mean` and `axes`, float64, of the map.

    Raises Refusal where there is no scikit-learn, whose digits they are.
    """
    from glassgpt.evaluation.digits import DARKEST, digit_map, digit_net  # SciPy, which nothing else here needs

    try:
        net = digit_net(seed=seed)
    except UsageError as error:
        cure = "pip install 'glassgpt[classify]', and start the server again"
        raise Refusal("missing", str(error), cure, 501) from error
    layout = digit_map(net)
    weights = {name: as_float32(value.detach().numpy()) for name, value in net.net.named_parameters()}
    images = np.rint(net.held_out.images * DARKEST).astype(np.uint8)
    held_out = {"images": images, "labels": net.held_out.labels.astype(np.uint8)}
    about = {
        "seed": seed,
        "darkest": int(DARKEST),
        "n_parameters": net.n_parameters,
        "n_training": net.n_training,
        "right": [net.right.value, net.right.low, net.right.high],
        "explained": layout.explained.tolist(),
    }
    return tensor_bytes(weights | held_out | {"mean": layout.mean, "axes": layout.axes}, about)
