"""Rate-limited HTTP client for arXiv, shared by all processes of an installation.

arXiv's terms of use require one connection at a time and at least three seconds between requests,
over its three interfaces together. A file lock excludes other processes during a request. A file
beside it stores the end of the last response and the pause after it. A refusal (429, 403), a server
error, a time-out or a damaged response lengthens the pause: doubled each time with jitter, or as
long as `Retry-After` says. The pause survives a restart of the process.

The pause is measured by the monotonic clock while the machine runs, and by the wall clock after a
reboot. Setting the clock never lengthens it.
"""

from __future__ import annotations

import contextlib
import json
import random
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, TypeVar, cast

import httpx

from etude.core.atomic_files import replace_text
from etude.core.errors import SourceDownError, SourceError
from etude.core.lock import FileLock
from etude.core.paths import home
from etude.papers.settings import Settings

T = TypeVar("T")

LARGEST = 64 * 2**20
"""Maximum size of a response, decompressed; a page of 2,500 records has about 7 MB."""
LONGEST_REST = 3600.0
"""Maximum cool-down in seconds, whatever `Retry-After` says."""
FIRST_BACK_OFF = 10.0
_RETRIED = {403, 408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524}


class DamagedError(Exception):
    """A response that is truncated or malformed, so that a retry may help."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A response of a server."""

    address: str
    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes


@dataclass(frozen=True, slots=True)
class _Rest:
    """End of the last response, by both clocks, and the pause after it."""

    boot: str = ""
    monotonic: float = 0.0
    wall: float = 0.0
    seconds: float = 0.0
    failures: int = 0
    why: str = ""


def boot_name() -> str:
    """Return an id of this boot of the machine; the monotonic clock is shared within a boot."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


@dataclass(frozen=True, slots=True)
class Clocks:
    """Clocks and sleep of the client, replaceable in tests."""

    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep
    boot: Callable[[], str] = boot_name


class RateLimitedClient:
    """Sends one request at a time, with the required pauses.

    Args:
        settings: pause, tries, time-out and User-Agent.
        folder: folder of the lock and of the stored pause; Etude's data folder unless given.
        clocks: clocks and sleep.
        chance: random number generator for the jitter.
        told: called with a message before each noticeable wait.
        transport: replaces the network in tests.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        folder: Path | None = None,
        clocks: Clocks | None = None,
        chance: random.Random | None = None,
        told: Callable[[str], None] | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.settings = settings
        self.folder = folder or home()
        self.clocks = clocks or Clocks()
        self.told = told
        self.requests = 0
        self._chance = chance or random.Random()
        self._pause = settings.pause
        # For a replay on this machine, the back-off shrinks with the pause.
        self._scale = min(1.0, settings.pause / 3.0)
        self._client = httpx.Client(
            headers={"User-Agent": settings.agent},
            timeout=httpx.Timeout(settings.timeout, connect=min(20.0, settings.timeout)),
            limits=httpx.Limits(max_connections=1, max_keepalive_connections=1),
            follow_redirects=False,
            transport=transport,
            trust_env=transport is None,
        )

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def __enter__(self) -> RateLimitedClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(
        self,
        address: str,
        read: Callable[[Answer], T],
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> T:
        """Send a request and return what `read` makes of the response, retrying after failures.

        Args:
            address: URL without a query.
            read: parses responses with status 200, 304 and 4xx other than 403 and 429; raises
                `DamagedError` to have the request repeated.
            query: parameters.
            headers: in addition to the User-Agent.

        Raises:
            SourceDownError: no usable response, or a cool-down longer than `settings.patience`.
        """
        url = httpx.URL(address, params=dict(query)) if query else httpx.URL(address)
        why = ""
        for _ in range(self.settings.tries):
            with self._locked():
                self._wait(url.host)
                retry_after: float | None = None
                try:
                    answer = self._send(url, headers or {})
                    why = _trouble(answer)
                    moved = _moved(url, answer)
                    if moved is not None:
                        # A redirect is a request like any other: after the pause, and counted.
                        url, why = moved, f"{url.host} redirects to {moved.host} repeatedly"
                        self._keep(self._pause, 0, "")
                        continue
                    if not why:
                        found = read(answer)
                        self._keep(self._pause, 0, "")
                        return found
                    retry_after = self._retry_after(answer)
                except DamagedError as error:
                    why = str(error)
                except httpx.HTTPError as error:
                    why = _said(error)
                except BaseException:
                    # Ctrl-C, or an error of the caller's: the pause still starts now.
                    self._keep(self._pause, 0, "")
                    raise
                self._back_off(why, retry_after)
        raise SourceDownError(
            f"{url.host} gave no usable answer in {self.settings.tries} tries: {why}"
        )

    def _send(self, url: httpx.URL, headers: Mapping[str, str]) -> Answer:
        end = self.clocks.monotonic() + self.settings.timeout
        self.requests += 1
        with self._client.stream("GET", url, headers=dict(headers)) as response:
            parts: list[bytes] = []
            size = 0
            for part in response.iter_bytes():
                parts.append(part)
                size += len(part)
                if size > LARGEST:
                    raise DamagedError(f"the response is larger than {LARGEST >> 20} MiB")
                if self.clocks.monotonic() > end:
                    raise httpx.ReadTimeout(f"longer than {self.settings.timeout:g} s")
            names = {name.lower(): value for name, value in response.headers.items()}
            return Answer(str(url), response.status_code, names, b"".join(parts))

    def _retry_after(self, answer: Answer) -> float | None:
        text = answer.headers.get("retry-after", "").strip()
        if not text:
            return None
        if text.isascii() and text.isdigit():
            return min(float(text[:9]), LONGEST_REST)
        try:
            moment = parsedate_to_datetime(text)
        except ValueError:
            return None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        # The server's clock, if it is sent: ours may be wrong by hours.
        now = datetime.fromtimestamp(self.clocks.wall(), UTC)
        with contextlib.suppress(ValueError):
            now = parsedate_to_datetime(answer.headers.get("date", ""))
        if now.tzinfo is None:
            now = now.replace(tzinfo=UTC)
        return min(max(0.0, (moment - now).total_seconds()), LONGEST_REST)

    def _back_off(self, why: str, retry_after: float | None) -> None:
        failures = self._rest().failures + 1
        seconds = min(FIRST_BACK_OFF * 2.0 ** min(failures - 1, 20), LONGEST_REST) * self._scale
        seconds *= self._chance.uniform(0.75, 1.25)
        if retry_after is not None:
            seconds = max(retry_after, seconds if retry_after == 0 else 0.0)
        self._keep(min(max(seconds, self._pause), LONGEST_REST), failures, why)

    def _wait(self, host: str) -> None:
        rest = self._rest()
        remaining = self._remaining(rest)
        if remaining > self.settings.patience:
            until = datetime.fromtimestamp(self.clocks.wall() + remaining, UTC)
            raise SourceDownError(
                f"no requests to {host} until {until:%H:%M} UTC, since it asked to wait"
                f"{f' ({rest.why})' if rest.why else ''}: run again then"
            )
        if remaining > 2 * self._pause and self.told:
            self.told(f"waiting {remaining:.0f} s for {host}{f': {rest.why}' if rest.why else ''}")
        end = self.clocks.monotonic() + remaining
        while (left := end - self.clocks.monotonic()) > 0:
            self.clocks.sleep(left)

    def _remaining(self, rest: _Rest) -> float:
        if rest.boot and rest.boot == self.clocks.boot():
            gone = self.clocks.monotonic() - rest.monotonic
        else:
            gone = self.clocks.wall() - rest.wall
        # If the clock was set back, at most the whole pause remains.
        return min(max(0.0, rest.seconds - gone), rest.seconds)

    @property
    def _rest_file(self) -> Path:
        return self.folder / "arxiv-gate.json"

    @contextlib.contextmanager
    def _locked(self) -> Generator[None]:
        """Hold the lock; other processes wait here for their turn."""
        with contextlib.ExitStack() as held:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                held.enter_context(FileLock(self._rest_file.with_suffix(".lock"), wait=True))
            except OSError as error:
                raise self._unusable(error) from error
            yield

    def _unusable(self, error: OSError) -> SourceError:
        return SourceError(f"{self._rest_file} cannot be used: {error.strerror or error}")

    def _rest(self) -> _Rest:
        try:
            found: Any = json.loads(self._rest_file.read_text("utf-8"))
            rest = _Rest(**cast("dict[str, Any]", found))
            return replace(
                rest,
                monotonic=float(rest.monotonic),
                wall=float(rest.wall),
                seconds=min(max(0.0, float(rest.seconds)), LONGEST_REST),
                failures=int(rest.failures),
                why=str(rest.why),
            )
        except FileNotFoundError:
            return _Rest()
        except OSError as error:
            raise self._unusable(error) from error
        except (ValueError, TypeError):
            return _Rest()  # edited or damaged: the pause starts with the next response

    def _keep(self, seconds: float, failures: int, why: str) -> None:
        rest = _Rest(
            self.clocks.boot(),
            self.clocks.monotonic(),
            self.clocks.wall(),
            seconds,
            failures,
            why[:200],
        )
        try:
            replace_text(self._rest_file, json.dumps(asdict(rest)))
        except OSError as error:
            raise self._unusable(error) from error

    def cool_down(self) -> tuple[float, str]:
        """Return the remaining seconds of the pause and the reason, for `health`."""
        try:
            rest = self._rest()
        except SourceError:
            return 0.0, ""
        return self._remaining(rest), rest.why


def _trouble(answer: Answer) -> str:
    """Return the reason to repeat a request, or an empty string."""
    if answer.status in _RETRIED or answer.status >= 500:
        return f"HTTP {answer.status}"
    return ""


def _moved(url: httpx.URL, answer: Answer) -> httpx.URL | None:
    """Return the target of a redirect, which must be the same site; None without a redirect."""
    if answer.status not in {301, 302, 303, 307, 308}:
        return None
    target = url.join(answer.headers.get("location", ""))
    site = ".".join(url.host.split(".")[-2:])
    if target.scheme not in {"http", "https"} or not f".{target.host}".endswith(f".{site}"):
        raise SourceError(f"{url.host} redirects off-site, {str(target)[:200]!r}; not followed")
    return target


def _said(error: httpx.HTTPError) -> str:
    if isinstance(error, httpx.TimeoutException):
        return f"no answer in time ({type(error).__name__})"
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
