"""Tokens are made once, and are those that would be made again."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from etude.core.errors import DataError
from etude.core.progress import SilentProgress
from etude.tuning.config.sections.data import DataSpec
from etude.tuning.data.encode import Encoder
from etude.tuning.data.schema import Message, Sample
from etude.tuning.data.token_cache import cache_key, encode_cached, evict
from etude.tuning.data.token_files import StoreWriter, TokenStore


def talk(number: int) -> Sample:
    question = ("user", f"What is {number} and {number}?")
    return Sample.conversation(
        question, ("assistant", f"It is {2 * number}."), origin=f"f:{number}"
    )


def pair(number: int) -> Sample:
    better = talk(number)
    worse = (better.messages[0], Message("assistant", "No idea."))
    return replace(better, rejected=worse, context=1)


@pytest.fixture
def encoder(tiny_tokenizer):
    return Encoder(tiny_tokenizer, DataSpec(train="f", max_length=64))


def same(one, other) -> bool:
    return (
        np.array_equal(one.input_ids, other.input_ids)
        and np.array_equal(one.trained, other.trained)
        and (one.origin, one.desirable) == (other.origin, other.desirable)
        and (one.rejected is None) == (other.rejected is None)
        and (one.rejected is None or same(one.rejected, other.rejected))
    )


@pytest.mark.parametrize(
    "samples",
    [
        [talk(number) for number in range(700)],
        [pair(number) for number in range(30)],
        [replace(talk(number), desirable=number % 3 == 0, context=1) for number in range(30)],
        [
            Sample.plain(f"Text number {number}, naïve\nand long.", f"g:{number}")
            for number in range(9)
        ],
    ],
    ids=["talks", "pairs", "unpaired", "texts"],
)
def test_kept_tokens_are_those_that_are_made(encoder, tmp_path, samples):
    fresh = encoder.encode_all(samples)
    said = []
    for _ in range(2):
        kept = encode_cached(encoder, samples, SilentProgress(), said.append, tmp_path)
        assert kept.stats == fresh.stats and kept.lengths == fresh.lengths
        assert all(same(one, other) for one, other in zip(kept.samples, fresh.samples, strict=True))
        assert same(kept.samples[-1], fresh.samples[-1])
    assert said == [f"using cached tokens of {len(samples):,} training samples"]
    assert len(list(tmp_path.iterdir())) == 1


def test_whatever_tokens_depend_on_is_in_their_name(encoder, tiny_tokenizer, tmp_path):
    samples = [talk(1), talk(2)]
    names = {cache_key(encoder, samples)}
    other = Encoder(tiny_tokenizer, DataSpec(train="f", max_length=63))
    names.add(cache_key(other, samples))
    names.add(cache_key(encoder, samples[::-1]))
    names.add(cache_key(encoder, samples[:1]))
    names.add(cache_key(encoder, [talk(1), replace(talk(2), origin="g:2")]))
    names.add(cache_key(encoder, [talk(1), replace(talk(2), context=1)]))
    template = tiny_tokenizer.chat_template
    try:
        tiny_tokenizer.chat_template = template.replace("one line", "two lines")
        names.add(cache_key(Encoder(tiny_tokenizer, encoder.spec), samples))
    finally:
        tiny_tokenizer.chat_template = template
    assert len(names) == 7 and None not in names
    assert cache_key(encoder, samples) in names


def test_a_sample_that_stops_a_run_leaves_nothing_behind(tiny_tokenizer, tmp_path):
    spec = DataSpec(train="f", max_length=64, too_long="error")
    encoder = Encoder(tiny_tokenizer, spec)
    long = Sample.conversation(("user", "word " * 99), ("assistant", "yes"), origin="f:9")
    with pytest.raises(DataError, match="f:9"):
        encode_cached(encoder, [talk(1), long], SilentProgress(), print, tmp_path)
    assert list(tmp_path.iterdir()) == []


FILES = ("tokens", "trained", "ends", "sides", "desirable", "origins", "about")


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("damage", ["cut", "changed"])
def test_a_damaged_store_is_made_again(encoder, tmp_path, file, damage):
    samples = [talk(number) for number in range(5)]
    encode_cached(encoder, samples, SilentProgress(), print, tmp_path)
    (store,) = tmp_path.iterdir()
    whole = (store / file).read_bytes()
    half = len(whole) // 2
    rest = bytes([whole[half] ^ 1]) + whole[half + 1 :]
    (store / file).write_bytes(whole[:half] + (rest if damage == "changed" else b""))
    said = []
    again = encode_cached(encoder, samples, SilentProgress(), said.append, tmp_path)
    assert same(again.samples[4], encoder.encode(samples[4]))
    assert [len(one) for one in again.samples] == [len(encoder.encode(one)) for one in samples]
    assert again.stats == encoder.encode_all(samples).stats
    assert said == [] and (store / file).read_bytes() == whole


@pytest.mark.parametrize(
    "about",
    [
        {"form": 1, "sums": {"stats": 0}, "stats": {"samples": 5}},
        {"form": 1, "sums": [], "stats": "{}"},
        {"form": 1, "sums": {}},
        {"form": 1},
        {"form": 99},
        ["form", 1],
        None,
        7,
    ],
    ids=str,
)
def test_a_store_that_says_other_things_of_itself_is_made_again(encoder, tmp_path, about):
    samples = [talk(number) for number in range(5)]
    encode_cached(encoder, samples, SilentProgress(), print, tmp_path)
    (store,) = tmp_path.iterdir()
    whole = (store / "about").read_bytes()
    (store / "about").write_text(json.dumps(about))
    said = []
    again = encode_cached(encoder, samples, SilentProgress(), said.append, tmp_path)
    assert [len(one) for one in again.samples] == [len(encoder.encode(one)) for one in samples]
    assert said == [] and (store / "about").read_bytes() == whole


def test_a_disk_that_takes_no_tokens_is_no_reason_to_stop(encoder, tmp_path):
    (tmp_path / "tokens").write_text("in the way")
    said = []
    kept = encode_cached(encoder, [talk(1)], SilentProgress(), said.append, tmp_path / "tokens")
    assert len(kept.samples) == 1 and "cannot cache tokens" in said[0]


def test_a_process_killed_while_it_writes_leaves_no_store(tmp_path):
    code = f"""
import os, numpy as np
from pathlib import Path
from etude.tuning.data.encoded import EncodedSample
from etude.tuning.data.token_files import StoreWriter
writer = StoreWriter(Path({str(tmp_path / "store")!r}))
for number in range(10_000):
    writer.add(EncodedSample(np.arange(50, dtype=np.int32), np.ones(50, np.bool_), "f:1"))
os.kill(os.getpid(), {int(signal.SIGKILL)})
"""
    done = subprocess.run([sys.executable, "-c", code], env=os.environ)
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "store").exists()


def test_the_stores_used_longest_ago_make_room(encoder, tmp_path):
    places = []
    for number in range(4):
        writer = StoreWriter(tmp_path / f"s{number}")
        stats = encoder.encode_each([talk(number)], writer.add)
        writer.finish(stats)
        os.utime(tmp_path / f"s{number}", (number, number))
        places.append(tmp_path / f"s{number}")
    size = sum(file.stat().st_size for file in places[0].iterdir())
    evict(tmp_path, keep=places[0], most=2 * size + size // 2)
    assert sorted(place.name for place in tmp_path.iterdir()) == ["s0", "s3"]
    assert len(TokenStore(places[3])) == 1
    about = json.loads((places[3] / "about").read_text())
    (places[3] / "about").write_text(json.dumps(about | {"form": 99}))
    with pytest.raises(ValueError, match="another form"):
        TokenStore(places[3])
