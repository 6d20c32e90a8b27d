"""Which samples records are of, and which settings of a codec: what may be joined to one curve, and what is told apart.

Names do not tell: every other folder is called `test`, and holds an `img_001.png`. Records carry a digest of each sample (`content`) and
the settings of classical codecs (`settings`, as JSON). Records of earlier versions have neither; they are taken at their names.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

Samples = Mapping[str, str]  # content by name


@dataclass
class SampleSet:
    """One set of samples, of which several tables may have a part each."""

    data: str
    samples: dict[str, str] = field(default_factory=dict)
    tables: list[int] = field(default_factory=list)  # places of those that are of it

    @property
    def digits(self) -> str:
        """The set's identity: of all contents, in whatever order and under whatever names; empty if nothing is known."""
        joined = " ".join(sorted(self.samples.values()))
        return hashlib.sha256(joined.encode()).hexdigest()[:8] if joined else ""

    def fits(self, other: Samples) -> bool:
        """Whether these may be samples of one set: one of both has all that the other has, under the same names."""
        shared = min(len(self.samples), len(other))
        return len(self.samples.items() & other.items()) == shared


def samples_of(table: pd.DataFrame) -> dict[str, str]:
    """Content of each sample that a table says it of."""
    if "content" not in table:
        return {}
    named = zip(table.image, table.content, strict=True)
    return {str(image): content for image, content in named if isinstance(content, str) and content}


def mixed(table: pd.DataFrame) -> list[str]:
    """Names that stand for two different samples of one data set within a table."""
    if "content" not in table:
        return []
    known = table[table.content.notna() & (table.content != "")]
    counts = known.groupby(["data", "image"]).content.nunique()
    return [str(image) for _, image in counts[counts > 1].index]  # type: ignore[misc]


def sets_of(tables: Sequence[pd.DataFrame]) -> list[SampleSet]:
    """The data sets that tables are of, told apart by content; records that do not say it count as of the first set of that name."""
    parts = [(place, str(data), samples_of(rows)) for place, table in enumerate(tables) for data, rows in table.groupby("data", sort=False)]
    found: list[SampleSet] = []
    # The largest first, so that interrupted runs find the set that they are a part of; those that say nothing come last.
    for place, data, samples in sorted(parts, key=lambda part: -len(part[2])):
        own = next((s for s in found if s.data == data and s.fits(samples)), None)
        if own is None:
            own = SampleSet(data, dict(samples))
            found.append(own)
        own.tables.append(place)
    return sorted(found, key=lambda s: min(s.tables))


def unsaid(table: pd.DataFrame) -> bool:
    """Whether some records do not say what their samples are."""
    return "content" not in table or bool((table.content.isna() | (table.content == "")).any())


def by_settings(tables: Sequence[pd.DataFrame]) -> list[pd.DataFrame]:
    """The tables with classical codecs of one name and different settings told apart, in the name: "avif [speed=1]", "avif [speed=9]"."""
    known: dict[str, dict[str, None]] = {}
    for table in tables:
        for codec, settings in _settings(table):
            known.setdefault(codec, {})[settings] = None
    several = {codec: labels(list(settings)) for codec, settings in known.items() if len([s for s in settings if s]) > 1}
    if not several:
        return list(tables)
    named = []
    for table in tables:
        rows = _settings(table)
        codecs = [f"{codec} [{several[codec][settings]}]" if codec in several else codec for codec, settings in rows]
        named.append(table.assign(codec=codecs))
    return named


def _settings(table: pd.DataFrame) -> list[tuple[str, str]]:
    """Codec and settings of each record; settings are empty for learned codecs, and where they were not recorded."""
    texts = table.settings.fillna("") if "settings" in table else pd.Series("", index=table.index)
    texts = texts.where(table.kind != "learned", "")
    return [(str(codec), str(text)) for codec, text in zip(table.codec, texts, strict=True)]


def labels(settings: Sequence[str]) -> dict[str, str]:
    """In what each differs from the others, in few words; each is JSON of an object, or empty if it was not recorded."""
    parsed = {text: _words(text) for text in settings if text}
    shared = set.intersection(*(set(words) for words in parsed.values()))
    told = {text: " ".join(word for word in words if word not in shared) or "default" for text, words in parsed.items()}
    if len(set(told.values())) < len(told):  # the same words in another order
        told = {text: text for text in parsed}
    return {**told, "": "settings not recorded"}


def _words(text: str) -> list[str]:
    """`key=value` of every setting; of command lines each word."""
    try:
        settings = json.loads(text)
    except ValueError:
        return [text]
    if not isinstance(settings, dict):
        return [text]
    words: list[str] = []
    for key, value in settings.items():
        words += _line(value) if isinstance(value, str) and " " in value else [f"{key}={value}"]
    return words


def _line(command: str) -> Iterable[str]:
    try:
        return shlex.split(command)
    except ValueError:
        return [command]
