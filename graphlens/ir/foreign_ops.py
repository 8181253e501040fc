"""Op types that TensorFlow does not have, and the packages that register them.

Read off the wheels' libraries and their Python (tensorflow-text 2.21.1 by its registry under TensorFlow 2.21, ydf-tf
2.21.0.post1, struct2tensor 0.48.1, tensorflow-io 0.37.1, tensorflow-addons 0.23.0, tensorflow-compression 2.14.1,
dm-reverb 0.14.0); the last four are told by the prefix under which their sources register ops.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from graphlens.ir.optable import table


@dataclass(frozen=True, slots=True)
class Package:
    """What registers ops when it is imported: how it is installed, how it is imported, and their types."""

    name: str
    module: str
    types: re.Pattern[str]


def _package(name: str, module: str, pattern: str) -> Package:
    return Package(name, module, re.compile(rf"^(?:{pattern})$"))


PACKAGES: Final = (
    _package(
        "tensorflow-text",
        "tensorflow_text",
        r"TFText>\w+|CaseFoldUTF8|ConstrainedSequence|FastBertNormalize|FastWordpieceTokenizeWithOffsets"
        r"|FindSourceOffsets|MaxSpanningTree|NormalizeUTF8(WithOffsetsMap)?|PhraseTokenize|RegexSplitWithOffsets|RougeL"
        r"|SentenceFragments(V2)?|Sentencepiece\w*Op|SplitMergeTokenizeWithOffsets|TokenizerFromLogits"
        r"|UnicodeScriptTokenizeWithOffsets|W(hitespace|ordpiece)TokenizeWithOffsets",
    ),
    _package("ydf-tf", "ydf_tf", r"SimpleML\w+"),
    _package(
        "struct2tensor",
        "struct2tensor",
        r"DecodeProto(Map|MapV2|SparseV\d)|EquiJoin(Any)?Indices|RunLengthBefore|ParquetDataset",
    ),
    _package("tensorflow-io", "tensorflow_io", r"IO>\w+|Bigtable\w+"),
    _package("tensorflow-addons", "tensorflow_addons", r"Addons>\w+"),
    _package(
        "tensorflow-compression",
        "tensorflow_compression",
        r"CreateRange(De|En)coder|Entropy(De|En)code(Channel|Finalize|Index)|PmfToQuantizedCdf|StochasticRound"
        r"|RunLength(Gamma)?(De|En)code|Y4MDataset",
    ),
    _package("dm-reverb", "reverb", r"Reverb\w+"),
    _package("tensorflow-recommenders-addons", "tensorflow_recommenders_addons", r"TFRA>\w+"),
    _package("larq-compute-engine", "larq_compute_engine", r"Lce\w+"),
    _package("tensorflow-quantum", "tensorflow_quantum", r"Tfq\w+"),
    _package("horovod", "horovod.tensorflow", r"Horovod\w+"),
)

_SHOWN: Final = 8


def foreign(types: Iterable[str]) -> list[str]:
    """Return those of ``types`` that no TensorFlow registers by itself, sorted.

    >>> foreign(["Relu", "CaseFoldUTF8", "_Arg", "SimpleMLInferenceOpWithHandle"])
    ['CaseFoldUTF8', 'SimpleMLInferenceOpWithHandle']
    """
    known = table()
    return sorted({kind for kind in types if kind not in known and not kind.startswith("_")})


def package_of(kind: str) -> Package | None:
    """Return the package that registers ops of type ``kind``, ``None`` where that is not known.

    >>> package_of("SimpleMLInferenceOpWithHandle").name, package_of("MyOwnOp")
    ('ydf-tf', None)
    """
    return next((package for package in PACKAGES if package.types.match(kind)), None)


def packages_of(types: Iterable[str]) -> list[Package]:
    """Return the packages that register ops of ``types``, each once."""
    return list(dict.fromkeys(package for kind in types if (package := package_of(kind)) is not None))


def listed(types: Iterable[str]) -> str:
    """Name op types with the package of each, those of one package together.

    >>> listed(["CaseFoldUTF8", "MyOwnOp", "RougeL"])
    'CaseFoldUTF8, RougeL (tensorflow-text); MyOwnOp (of an unknown package)'
    """
    groups: dict[str, list[str]] = {}
    for kind in types:
        package = package_of(kind)
        groups.setdefault(package.name if package else "", []).append(kind)
    return "; ".join(
        f"{_some(groups[name])} ({name or 'of an unknown package'})"
        for name in sorted(groups, key=lambda name: not name)
    )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{', '.join(names[:_SHOWN])}{more}"


def how_to_register(types: Iterable[str]) -> str:
    """Say what to do so that ops of these types can run.

    >>> how_to_register(["CaseFoldUTF8"])
    'pip install tensorflow-text (of the version of TensorFlow)'
    >>> how_to_register(["MyOwnOp"])
    'name the Python module that registers them with --import MODULE'
    """
    kinds = list(types)
    names = " ".join(package.name for package in packages_of(kinds))
    install = [f"pip install {names} (of the version of TensorFlow)"] if names else []
    rest = any(package_of(kind) is None for kind in kinds)
    name = ["name the Python module that registers them with --import MODULE"] if rest else []
    return ", and ".join([*install, *name])
