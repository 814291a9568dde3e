"""Text in images, read inside this process: PP-OCRv6 by `rapidocr` on onnxruntime, models in the package's wheel.

The package downloads a model that it does not find, and fonts when it draws. Here it is given the paths of its models,
each looked for first, and never draws: so nothing is fetched.
"""

from __future__ import annotations

import logging
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import ModelError, ModelMisconfigured
from .installed import directory_of, imported
from .ocr import TextLine

EXTRA = "multimodal"
PACKAGE = "rapidocr"
ENGINE = "onnxruntime"
_MODELS = {
    "Det": "PP-OCRv6_det_small.onnx",
    "Cls": "ch_ppocr_mobile_v2.0_cls_mobile.onnx",
    "Rec": "PP-OCRv6_rec_small.onnx",
}
# Images whose shorter side has less pixels are enlarged to it before text is looked for. The package's own 736 costs up
# to three times the time on a few lines of text, and finds no more (benchmarks/bench_multimodal.py).
_SHORTEST_SIDE = 480


class RapidOcr:
    """One image at a time, in the caller's thread. *threads* is for the engine."""

    name = PACKAGE

    def __init__(self, *, threads: int = 1) -> None:
        folder = directory_of(PACKAGE, extra=EXTRA) / "models"
        missing = [name for name in _MODELS.values() if not (folder / name).is_file()]
        if missing:
            raise ModelMisconfigured(f"the installed {PACKAGE} lacks its models {', '.join(missing)}")
        imported(ENGINE, extra=EXTRA)
        self._parameters = {f"{part}.model_path": str(folder / name) for part, name in _MODELS.items()} | {
            "Global.log_level": "critical",
            "Det.limit_side_len": _SHORTEST_SIDE,
            f"EngineConfig.{ENGINE}.intra_op_num_threads": threads,
        }
        self._lock = Lock()
        self._engine: Any = None

    def read(self, image: npt.NDArray[np.uint8]) -> list[TextLine]:
        """The lines of *image* (height, width, 3; RGB), from top to bottom; none where there is no text."""
        with self._lock:
            if self._engine is None:
                self._engine = self._made()
            found = self._engine(np.ascontiguousarray(image[:, :, ::-1]))
        if found.txts is None:
            return []
        return [
            TextLine(text, round(float(score), 4), tuple((round(float(x), 1), round(float(y), 1)) for x, y in box))
            for text, score, box in zip(found.txts, found.scores, found.boxes, strict=True)
        ]

    def _made(self) -> Any:
        package = imported(PACKAGE, extra=EXTRA)
        # The package gives its logger a handler of its own, on the standard error.
        logging.getLogger("RapidOCR").handlers.clear()
        try:
            return package.RapidOCR(params=self._parameters)
        except (OSError, ValueError, RuntimeError) as error:
            raise ModelError(f"{PACKAGE} cannot be started: {error}") from error
