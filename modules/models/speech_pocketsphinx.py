"""Speech to text inside this process: `pocketsphinx`, its model of American English in its wheel.

A voice activity detector cuts the sound at pauses, and each utterance is decoded by itself: so the result has times,
memory does not grow with the length, and a caller sees that work goes on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain

from .errors import ModelError
from .installed import imported
from .speech import SAMPLE_RATE, Utterance

EXTRA = "audio"
PACKAGE = "pocketsphinx"
# An utterance without a pause is cut here: the decoder's memory grows with its length.
_LONGEST_UTTERANCE_BYTES = 30 * SAMPLE_RATE * 2
# A pause is where half a second has no speech in nine frames of ten; what is shorter belongs to the sentence.
_WINDOW_S = 0.5
_RATIO = 0.9
_SILENCE_S = 1.0
_SILENCE = bytes(int(_SILENCE_S * SAMPLE_RATE) * 2)


class PocketSphinx:
    """One recording at a time, in the caller's thread."""

    name = PACKAGE

    def __init__(self) -> None:
        self._package = imported(PACKAGE, extra=EXTRA)
        try:
            self._decoder = self._package.Decoder(samprate=SAMPLE_RATE, loglevel="FATAL")
        except RuntimeError as error:
            raise ModelError(f"{PACKAGE} cannot be started: {error}") from error

    def transcribe(self, pieces: Iterable[bytes]) -> Iterator[Utterance]:
        """What is said in *pieces*: 16-bit samples of this machine's byte order, one channel, 16 kHz, in order."""
        endpointer = self._package.Endpointer(window=_WINDOW_S, ratio=_RATIO, sample_rate=SAMPLE_RATE)
        said = bytearray()
        start_s = 0.0
        # Silence before and after: the detector decides by a whole window, also for the first and the last word.
        for frame in _frames(chain([_SILENCE], pieces, [_SILENCE]), endpointer.frame_bytes):
            given = endpointer.process(frame)
            if given is None:
                continue
            if not said:
                start_s = endpointer.speech_start
            said += given
            if not endpointer.in_speech or len(said) >= _LONGEST_UTTERANCE_BYTES:
                yield from self._decoded(bytes(said), start_s - _SILENCE_S)
                start_s += len(said) / 2 / SAMPLE_RATE
                said.clear()
        if said:
            yield from self._decoded(bytes(said), start_s - _SILENCE_S)

    def _decoded(self, said: bytes, start_s: float) -> Iterator[Utterance]:
        self._decoder.start_utt()
        # The whole at once: the decoder then knows the recording's level before its first word.
        self._decoder.process_raw(said, full_utt=True)
        self._decoder.end_utt()
        guess = self._decoder.hyp()
        if guess is not None and guess.hypstr:
            end_s = start_s + len(said) / 2 / SAMPLE_RATE
            yield Utterance(guess.hypstr, round(max(0.0, start_s), 2), round(end_s, 2))


def _frames(pieces: Iterable[bytes], size: int) -> Iterator[bytes]:
    """*pieces* cut to frames of *size* bytes; what is left over at the end is not given."""
    rest = b""
    for piece in pieces:
        rest += piece
        whole = len(rest) - len(rest) % size
        for start in range(0, whole, size):
            yield rest[start : start + size]
        rest = rest[whole:]
