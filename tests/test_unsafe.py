"""Ops that reach out of a graph are named; what stays inside is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from graphlens.ir.sketch import sketch
from graphlens.ir.unsafe import unsafe_ops

REAL = Path(__file__).parents[2] / "shared" / "real"


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
    DistributedSave Skipgram IO>BigQueryClient IO>FileRead""".split(),
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
        "a = IteratorGetNext(x)",
        "a = CollectiveReduceV2(x)",
        "a = SaveSomethingOfMyOwn(x)",
        "a = Acme>Custom(x)",
    ],
)
def test_ops_that_stay_inside(line: str) -> None:
    assert unsafe(f"x = Const() string[] {{nbytes: 0}}\n{line}") == []


@pytest.mark.parametrize("source", ["name = Placeholder() string[]", "name = _Arg() string[]"])
def test_a_vocabulary_that_is_an_asset_is_no_file_of_somebody_else(source: str) -> None:
    name = source.partition(" ")[0]
    table = f"t = HashTableV2() resource[]\ni = Identity({name}) string[]\na = InitializeTableFromTextFileV2(t, i)"
    assert unsafe(f"{source}\n{table}") == []


def test_the_saver_of_a_main_graph_is_not_part_of_the_model() -> None:
    saver = "saver_filename = Placeholder() string[]\nn = StringJoin(saver_filename) string[]\ns = SaveV2(n)"
    assert unsafe(saver) == []
    assert unsafe("n = Const() string[]\ns = SaveV2(n)") == ["s"], "a name written in the graph is the model's own"


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


@pytest.mark.skipif(not REAL.exists(), reason="real models are not here")
@pytest.mark.parametrize("model", ["tfx_taxi_savedmodel", "basic_pitch_savedmodel"])
def test_real_models_with_vocabularies_and_a_saver_are_safe(model: str) -> None:
    savedmodel = pytest.importorskip("graphlens.loaders.savedmodel")
    loaded = savedmodel.load_saved_model(REAL / model, None, None)
    assert unsafe_ops(loaded.graph) == []
    assert [found for graph in loaded.on_load for found in unsafe_ops(graph)] == []


@pytest.mark.skipif(not REAL.exists(), reason="real models are not here")
def test_what_runs_on_loading_may_read_assets_of_the_model_only(tmp_path: Path) -> None:
    """The same bytes, but the vocabulary is no longer declared as an asset: then it is somebody's file."""
    from graphlens.loaders.savedmodel import load_saved_model
    from graphlens.loaders.schema import saved_model

    model = saved_model().FromString((REAL / "tfx_taxi_savedmodel/saved_model.pb").read_bytes())
    del model.meta_graphs[0].collection_def["saved_model_assets"]
    (tmp_path / "saved_model.pb").write_bytes(model.SerializeToString())
    found = [why for graph in load_saved_model(tmp_path).on_load for _, why in unsafe_ops(graph)]
    assert found
    assert all("InitializeTableFromTextFileV2 reads files" in why for why in found)
