"""Ops that reach out of a graph are named; what stays inside is not."""

from __future__ import annotations

from pathlib import Path

import pytest
from real_inputs import REAL

from graphlens.ir.unsafe import OWN_FILE, WRITTEN_VALUE, refusal, unsafe_ops
from graphlens.testing.sketch import sketch


def unsafe(text: str) -> list[str]:
    return [name for name, _ in unsafe_ops(sketch("static\n" + text).traced)]


@pytest.mark.parametrize(
    "op_type",
    """PyFunc PyFuncStateless EagerPyFunc ReadFile WriteFile MatchingFiles SaveV2 RestoreV2 MergeV2Checkpoints
    TFRecordDatasetV2 TextLineDataset FixedLengthRecordDatasetV2 CSVDatasetV2 ExperimentalSqlDataset LMDBDataset
    MatchingFilesDataset SnapshotDatasetV2 SaveDatasetV2 LoadDataset ListSnapshotChunksDataset DataServiceDatasetV4
    RegisterDatasetV2 CreateSummaryFileWriter CreateSummaryDbWriter WriteScalarSummary WriteSummary ImportEvent
    LoadAndRemapMatrix GenerateVocabRemapping RemoteCall XlaHostCompute RpcCall RpcServerStart WholeFileReaderV2
    TFRecordReaderV2 RecordInput ImmutableConst DumpTensor CalibrationStatisticsSaver FileSystemSetConfiguration
    DistributedSave Skipgram IO>BigQueryClient IO>FileRead DatasetFromGraph DeserializeIterator TRTEngineOp
    InitializeTRTResource SymbolicGradient Restore""".split(),
)
def test_ops_that_always_reach_out(op_type: str) -> None:
    assert unsafe(f"x = Const() string[]\na = {op_type}(x)") == ["a"]


@pytest.mark.parametrize(
    "line",
    [
        "a = PrintV2(x) {output_stream: file:///tmp/log}",
        "a = DebugIdentityV2(x) {debug_urls: [file:///tmp/dump]}",
        "a = DebugNanCount(x) {debug_urls: [grpc://host:1]}",
        "a = FixedUnigramCandidateSampler(x) {vocab_file: /etc/passwd}",
        "a = _Send(x) {send_device: /job:a/task:0/device:CPU:0, recv_device: /job:b/task:0/device:CPU:0}",
        "a = InitializeTableFromTextFileV2(x, x)",
        "a = CacheDatasetV2(x, x, x)",
        "a = DecodeProtoV2(x) {descriptor_source: /etc/passwd}",
        "a = EncodeProto(x) {descriptor_source: /etc/passwd}",
        "a = TensorSliceDataset(x) {is_files: true}",
        "a = PrintV2(x) {output_stream: ${where}}",
    ],
)
def test_ops_that_reach_out_with_these_attributes_or_inputs(line: str) -> None:
    assert unsafe(f"x = Const() string[] {{nbytes: 7}}\n{line}") == ["a"]


@pytest.mark.parametrize(
    "line",
    [
        "a = PrintV2(x) {output_stream: stderr}",
        "a = DebugIdentityV2(x) {debug_urls: []}",
        "a = FixedUnigramCandidateSampler(x)",
        "a = _Send(x) {send_device: /job:a/task:0/device:CPU:0, recv_device: /job:a/task:0/device:CPU:1}",
        "a = CacheDatasetV2(x, x, x)",
        "a = ParseExampleV2(x)",
        "a = DecodeJpeg(x)",
        "a = LookupTableFindV2(x)",
        "a = TensorSliceDataset(x)",
        "a = DecodeProtoV2(x) {descriptor_source: local://}",
        "a = DecodeProtoV2(x) {descriptor_source: bytes://abc}",
        "a = EncodeProto(x)",
        "a = IteratorGetNext(x)",
        "a = CollectiveReduceV2(x)",
        "a = SaveSomethingOfMyOwn(x)",
        "a = Acme>Custom(x)",
    ],
)
def test_ops_that_stay_inside(line: str) -> None:
    assert unsafe(f"x = Const() string[] {{nbytes: 0}}\n{line}") == []


# Where the name of a table's file comes from -> whether the model is then safe.  `p` is a path written in the graph.
NAMES = {
    "n = Placeholder() string[]": True,
    "n = _Arg() string[]": True,
    f"n = {OWN_FILE}() string[]": True,
    f"n = {WRITTEN_VALUE}() string[]": False,
    "n = Const() string[]": False,
    "n = PlaceholderWithDefault(p) string[]": False,
    "c = Placeholder() bool[]\nn = SelectV2(c, p, p) string[]": False,
    "c = Placeholder() bool[]\na = Placeholder() string[]\nn = SelectV2(c, a, p) string[]": False,
    "c = Const() bool[]\na = Placeholder() string[]\nn = SelectV2(c, a, a) string[]": True,
    "a = Placeholder() string[]\nn = StringJoin(a, p) string[]": False,
    "a = Placeholder() string[]\nk = Const() int32[]\nn = ShardedFilename(a, k, k) string[]": True,
    "n = Identity(^p) string[]": False,
    "a = Placeholder() string[]\nn = StringUpper(a) string[]": False,
}


@pytest.mark.parametrize("source", NAMES)
def test_a_vocabulary_is_the_callers_file_only_if_all_of_its_name_is_his(source: str) -> None:
    table = "t = HashTableV2() resource[]\ni = Identity(n) string[]\nvocabulary = InitializeTableFromTextFileV2(t, i)"
    found = unsafe(f"p = Const() string[] {{nbytes: 7}}\n{source}\n{table}")
    assert found == ([] if NAMES[source] else ["vocabulary"])


@pytest.mark.parametrize(("call", "safe"), [("name", True), ("path", False)])
def test_a_name_is_followed_to_all_callers_of_a_function(call: str, safe: bool) -> None:
    graph = f"""
        name = Placeholder() string[]
        path = Const() string[] {{nbytes: 7}}
        t = HashTableV2() resource[]
        first = PartitionedCall(name, t) {{call: f}}
        second = StatefulPartitionedCall({call}, t) {{call: f}}
        function f:
        n = _Arg() string[]
        t = _Arg() resource[]
        vocabulary = InitializeTableFromTextFileV2(t, n)
    """
    assert unsafe(graph) == ([] if safe else ["f/vocabulary"])


def test_a_name_that_a_loop_or_a_dataset_passes_is_not_followed() -> None:
    graph = """
        name = Placeholder() string[]
        d = MapDataset(name) {f: g}
        function g:
        n = _Arg() string[]
        vocabulary = InitializeTableFromTextFileV2(n, n)
    """
    assert unsafe(graph) == ["g/vocabulary"]


def test_only_a_loader_may_restore_and_only_from_the_models_own_files() -> None:
    restore = "n = {}() string[]\nr = RestoreV2(n, n, n)"
    assert unsafe(restore.format(OWN_FILE)) == []
    assert unsafe(restore.format("Placeholder")) == ["r"]


def test_a_saver_writes_whoever_gives_it_a_name() -> None:
    """A frozen graph and a `.meta` file run all that they hold, the saver included."""
    saver = "n = {}() string[]\nj = StringJoin(n) string[]\ns = SaveV2(j)"
    assert [unsafe(saver.format(source)) for source in ("Placeholder", OWN_FILE, "Const")] == [["s"]] * 3


def test_the_refusal_names_the_first_op_and_counts_the_others() -> None:
    assert refusal([]) is None
    two = refusal([("a", "ReadFile reads files"), ("b", "PyFunc runs Python")])
    assert two == "not executed: op 'a' and 1 more ReadFile reads files; pass --trust to execute it anyway"


def test_functions_are_searched_when_they_can_be_called() -> None:
    calls = """
        c = StatefulPartitionedCall() {call: f}
        d = MapDataset() {f: g}
        function f:
        a = PyFunc()
        function g:
        b = ReadFile()
        function h:
        never = ReadFile()
    """
    assert unsafe(calls) == ["f/a", "g/b"]


@pytest.mark.parametrize("model", ["tfx_taxi_savedmodel", "basic_pitch_savedmodel"])
def test_real_models_with_vocabularies_and_a_saver_are_safe(model: str) -> None:
    savedmodel = pytest.importorskip("graphlens.loaders.savedmodel")
    loaded = savedmodel.load_saved_model(REAL / model, None, None)
    assert loaded.judged.all_blockers() == []
    assert loaded.judged.on_load


def test_what_runs_on_loading_may_read_assets_of_the_model_only(tmp_path: Path) -> None:
    """The same bytes, but the vocabulary is no longer declared as an asset: then it is somebody's file."""
    from graphlens.loaders.savedmodel import load_saved_model
    from graphlens.loaders.schema import saved_model

    model = saved_model().FromString((REAL / "tfx_taxi_savedmodel/saved_model.pb").read_bytes())
    del model.meta_graphs[0].collection_def["saved_model_assets"]
    (tmp_path / "saved_model.pb").write_bytes(model.SerializeToString())
    found = [why for _, why in load_saved_model(tmp_path).judged.all_blockers()]
    assert found
    assert all("InitializeTableFromTextFileV2 reads files" in why for why in found)
