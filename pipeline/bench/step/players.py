"""The contestants' processes: started side by side, then each has its turn, round by round."""

import json
import queue
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

from pipeline.bench.process import command, end, environment, last_line, stop_if_asked
from pipeline.bench.step.baton import END, TURN
from pipeline.bench.timing import turns
from pipeline.config import UserError
from pipeline.progress import Bar


@dataclass(frozen=True)
class Entrant:
    """:ivar function: of its process, as ``child`` takes it; it goes through a ``Baton``.
    :ivar words: its arguments.
    :ivar on: the cores it may use, by number.
    :ivar ranks: processes under torchrun; 0 = one without it.
    """

    function: str
    words: dict[str, Any]
    on: list[int]
    ranks: int = 0


@dataclass
class Played:
    """:ivar rounds: of each, by name, what was told of the turn.
    :ivar last: by name, what was told after the last turn.
    :ivar failed: by name, {"failed": why, "errors": all it said} of those that did not run to the end.
    """

    rounds: list[dict[str, Any]] = field(default_factory=list)
    last: dict[str, dict[str, Any]] = field(default_factory=dict)
    failed: dict[str, dict[str, Any]] = field(default_factory=dict)

    def need(self, *names: str) -> None:
        """:raises UserError: what is asked for cannot be run here.
        :raises RuntimeError: one of these failed otherwise; with all that it said.
        """
        for name in names:
            if name in self.failed:
                kind, _, why = self.failed[name]["failed"].partition(": ")
                if kind == UserError.__name__:
                    raise UserError(why)
                raise RuntimeError(f"{name}: {self.failed[name]['failed']}\n{self.failed[name]['errors']}")


def play(
    entrants: Mapping[str, Entrant],
    rounds: int,
    limit: float,
    bar: Bar,
    together: Sequence[Sequence[str]] = (),
) -> Played:
    """:param limit: seconds for whatever is asked of one.
    :param bar: goes on by ``units``.
    :param together: names of those that have their turn at once; none = everybody alone.
    """
    played = Played()
    places = together or [(name,) for name in entrants]
    with ExitStack() as stack:
        players = {name: stack.enter_context(Player(one, limit)) for name, one in entrants.items()}

        def answers(names: Sequence[str], word: str | None = None) -> dict[str, Any]:
            for name in names:
                if word and name not in played.failed:
                    players[name].tell(word)
            told = {name: players[name].answer() for name in names if name not in played.failed}
            played.failed |= {name: answer for name, answer in told.items() if "failed" in answer}
            return told

        for name in players:
            answers([name])
            bar.advance()
        for number in range(rounds):
            told = [answers(place, TURN) for place in turns(places, number)]
            played.rounds.append({name: answer for each in told for name, answer in each.items()})
            bar.advance()
        for name in players:
            played.last |= answers([name], END)
    for told in played.rounds:
        for name in played.failed:
            told.pop(name, None)
    return played


def units(entrants: int, rounds: int) -> int:
    """By how much ``play`` advances its bar."""
    return entrants + rounds


class Player:
    """One contestant's process; a context, after which nothing of it runs on."""

    def __init__(self, entrant: Entrant, limit: float):
        self._limit, self._ranks = limit, entrant.ranks
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the process
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self._errors}
        words = command(entrant.function, entrant.words, entrant.on, ranks=entrant.ranks)
        self._process = subprocess.Popen(words, env=environment(), text=True, start_new_session=True, **pipes)
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def __enter__(self) -> "Player":
        return self

    def __exit__(self, *error: object) -> None:
        with suppress(BrokenPipeError):
            self._process.stdin.close()  # who still waits for a turn learns of it
        self._stop()
        self._errors.close()

    def tell(self, word: str) -> None:
        with suppress(BrokenPipeError):  # then it has no answer either
            self._process.stdin.write(f"{word}\n")
            self._process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """Its next line of JSON, or {"failed": why, "errors": all it said}. One that is late is ended: it
        would run on in the others' turns.

        :raises Preempted: this process was asked to stop meanwhile.
        """
        ends = time.monotonic() + self._limit
        while time.monotonic() < ends:
            stop_if_asked()
            ended = self._process.poll() is not None
            with suppress(queue.Empty, ValueError):  # others print here too, and not in JSON
                answer = json.loads(self._lines.get(timeout=0.5))
                if isinstance(answer, dict):
                    return self._failed(answer["failed"]) if "failed" in answer else answer
                continue
            if ended and self._lines.empty():
                return self._failed()
        self._stop()
        return self._failed(f"no answer after {self._limit:.0f} s")

    def _stop(self) -> None:
        if not self._ranks:
            self._process.kill()  # torchrun ends its ranks by itself
        end(self._process)

    def _failed(self, why: str | None = None) -> dict[str, Any]:
        """:param why: none where the process ended without a word."""
        code = None if why else self._process.wait()
        self._errors.seek(0)
        errors = self._errors.read()
        return {"failed": why or last_line(errors) or f"ended with code {code}", "errors": errors}

    def _read(self) -> None:
        for line in self._process.stdout:
            self._lines.put(line)
