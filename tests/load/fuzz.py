"""Mutated DICOM files through the sandbox: each gives pixels or a named refusal, none a surprise.

python -m tests.load.fuzz --files 10000 --seed 0

The images that come with pydicom are the seeds; the same number makes the same mutants. Whatever
is neither pixels nor an error of ours ends the run with the mutant's number.
"""

import argparse
import asyncio
import random
import time
from collections import Counter
from pathlib import Path

from pydicom.data import get_testdata_file

from service.errors import InvalidInput
from service.intake.decoder import decode
from service.intake.limits import Limits
from service.intake.sandbox import Sandbox

LARGEST_SEED = 700_000  # bytes
EXTREMES = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
LIMITS = Limits(timeout_seconds=10.0, memory_bytes=2**30)
AT_ONCE = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    began = time.monotonic()
    outcomes = asyncio.run(fuzz(options.files, options.seed, options.workers))
    for outcome, count in outcomes.most_common():
        print(f"{count:6d}  {outcome}")
    print(f"{options.files} files in {time.monotonic() - began:.0f} s")


async def fuzz(files: int, seed: int = 0, workers: int = 2) -> Counter[str]:
    """How many mutants ended how; raises what is not an error of intake, with the mutant named."""
    seeds = seed_files()
    outcomes: Counter[str] = Counter()
    sandbox = Sandbox(LIMITS, workers=workers)
    numbers = iter(range(files))

    async def decode_some() -> None:
        for number in numbers:
            outcomes[await outcome(sandbox, mutant(seeds, seed, number), number)] += 1

    await sandbox.start()
    try:
        await asyncio.gather(*(decode_some() for _ in range(AT_ONCE)))
    finally:
        await sandbox.close()
    return outcomes


async def outcome(sandbox: Sandbox, data: bytes, number: int) -> str:
    try:
        await sandbox.decode(data)
    except InvalidInput as error:
        crashed = str(error) == "the image made its decoder fail"
        late = "took longer" in str(error)
        return "decoder ended" if crashed else "late" if late else type(error).__name__
    except Exception as error:
        raise AssertionError(f"mutant {number}: {type(error).__name__}") from error
    return "pixels"


def seed_files() -> list[bytes]:
    folder = Path(str(get_testdata_file("CT_small.dcm", download=False))).parent
    paths = sorted(folder.rglob("*.dcm"))
    files = [path.read_bytes() for path in paths if path.stat().st_size <= LARGEST_SEED]
    return [file for file in files if is_image(file)]


def is_image(data: bytes) -> bool:
    try:
        decode(data)
    except InvalidInput:
        return False
    return True


def mutant(seeds: list[bytes], seed: int, number: int) -> bytes:
    """One seed file with one to four changes; the same for the same numbers."""
    chance = random.Random(f"{seed}/{number}")  # noqa: S311 - nothing is secret here
    data = bytearray(chance.choice(seeds))
    for _ in range(chance.randint(1, 4)):
        chance.choice(MUTATIONS)(data, chance)
    return bytes(data)


def flip(data: bytearray, chance: random.Random) -> None:
    place = _place(data, chance)
    data[place : place + 1] = bytes([_at(data, place) ^ 1 << chance.randrange(8)])


def overwrite(data: bytearray, chance: random.Random) -> None:
    place = _place(data, chance)
    data[place : place + 8] = chance.randbytes(chance.randint(1, 8))


def put_extreme(data: bytearray, chance: random.Random) -> None:
    """Lengths, counts and sizes are where decoders break."""
    place, size = _place(data, chance) & ~1, chance.choice((2, 4))
    value = chance.choice(EXTREMES) % 256**size
    data[place : place + size] = value.to_bytes(size, chance.choice(("little", "big")))


def cut(data: bytearray, chance: random.Random) -> None:
    place = _place(data, chance)
    del data[place : place + chance.randint(1, 64)]


def end_early(data: bytearray, chance: random.Random) -> None:
    if chance.random() < 0.2:
        del data[chance.randrange(len(data) + 1) :]


def repeat(data: bytearray, chance: random.Random) -> None:
    place = _place(data, chance)
    data[place:place] = data[place : place + chance.randint(1, 256)]


MUTATIONS = (flip, flip, flip, overwrite, put_extreme, put_extreme, cut, end_early, repeat)


def _place(data: bytearray, chance: random.Random) -> int:
    """Half of the time in the first kilobytes, where the header is."""
    most = min(len(data), 3000) if chance.random() < 0.5 else len(data)
    return chance.randrange(most + 1)


def _at(data: bytearray, place: int) -> int:
    return data[place] if place < len(data) else 0


if __name__ == "__main__":
    main()
