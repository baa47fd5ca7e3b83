"""The description of folders that nobody can trust."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from registry_sync.artifacts.description import check_complete, describe
from registry_sync.artifacts.environments.compatibility import MismatchPolicy, Verdict, judge
from registry_sync.artifacts.manifest import FetchedArtifact, Manifest
from registry_sync.errors import BrokenModelError, IncompleteArtifactError

SIGNATURE = [{"type": "double", "name": "a", "required": True}]


def mlmodel(**changes):
    pyfunc = {
        "loader_module": "mlflow.sklearn",
        "model_path": "model.pkl",
        "env": {"conda": "conda.yaml", "virtualenv": "python_env.yaml"},
    }
    whole = {
        "flavors": {"python_function": pyfunc, "sklearn": {"code": None}},
        "signature": {"inputs": json.dumps(SIGNATURE), "outputs": None, "params": None},
        "saved_input_example_info": {"serving_input_path": "serving_input_example.json"},
    }
    return whole | changes


@pytest.fixture
def folder(tmp_path: Path):
    (tmp_path / "MLmodel").write_text(yaml.safe_dump(mlmodel()))
    (tmp_path / "model.pkl").touch()
    (tmp_path / "conda.yaml").touch()
    (tmp_path / "python_env.yaml").write_text("python: 3.11.7\n")
    (tmp_path / "serving_input_example.json").write_text('{"inputs": [1]}')
    (tmp_path / "requirements.txt").write_text(
        "# made by hand\nscikit-learn==1.0.1\nno-such-package==2  # comment\n-r more.txt\n"
        "pytest>=1\nonly-elsewhere==1; sys_platform == 'win32'\ngit+https://example.org/x\n"
    )
    return tmp_path


def described(folder: Path):
    return describe(FetchedArtifact(folder, Manifest.of({"MLmodel": "0" * 64}), 7, None))


def write(folder: Path, **changes):
    (folder / "MLmodel").write_text(yaml.safe_dump(mlmodel(**changes)))


def test_a_name_without_its_suffix_stands_for_the_files_that_begin_with_it(folder):
    pyfunc = {"loader_module": "mlflow.paddle", "model_path": "weights"}
    write(folder, flavors={"python_function": pyfunc, "paddle": {"pickled_model": "weights"}})
    with pytest.raises(IncompleteArtifactError, match="'weights'"):
        check_complete(folder)
    (folder / "weights2.json").touch()
    with pytest.raises(IncompleteArtifactError, match="'weights'"):
        check_complete(folder)
    (folder / "weights.json").touch()
    (folder / "weights.pdiparams").touch()
    assert described(folder)["loader_module"] == "mlflow.paddle"


def test_everything_is_read(folder):
    found = described(folder)
    assert found == {
        "format_version": 1,
        "digest": Manifest.of({"MLmodel": "0" * 64}).digest,
        "size_bytes": 7,
        "flavor": "sklearn",
        "loader_module": "mlflow.sklearn",
        "predict_fn": "predict",
        "code": None,
        "env_python": "3.11.7",
        "signature": {"inputs": SIGNATURE, "outputs": None, "params": None},
        "frameworks": {"scikit-learn": "1.0.1"},
        "requirements": [
            "scikit-learn==1.0.1",
            "no-such-package==2",
            "pytest>=1",
            'only-elsewhere==1; sys_platform == "win32"',
            "the line '-r more.txt'",
            "the line 'git+https://example.org/x'",
        ],
        "example": {"path": "serving_input_example.json", "serving": {"inputs": [1]}},
    }


@pytest.mark.parametrize(
    ("text", "mismatches"),
    [
        (f"PyTest >= 1 \\\n    --hash=sha256:{'a' * 64} \\\n    --hash=sha256:{'b' * 64}\n", []),
        ("--index-url https://example.org\n--trusted-host example.org\n--pre\npytest\n", []),
        ("-c bounds.txt\n-c bounds.txt\npytest\n", ["pytest (here"]),
        ("-c bounds.txt\n", []),
        ("-c missing.txt\npytest\n", ["the line '-c missing.txt' (cannot be compared)"]),
        ("-r other.txt\n", ["the line '-r other.txt' (cannot be compared)"]),
        ("-e .\n", ["the line '-e .' (cannot be compared)"]),
        ("pytest>=${VERSION}\n", ["the line 'pytest>=${VERSION}' (cannot be compared)"]),
        ("pytest; " + "(" * 5000 + "\n", ["the line 'pytest; ((("]),
        ("pytest==1\n#" + "x" * 2**20, ["requirements.txt is larger than 1048576 bytes"]),
        ("pytest\n" * 2001, ["requirements.txt has more than 2000 lines (cannot be compared)"]),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else "",
)
def test_the_verdict_is_on_what_an_environment_would_be_built_from(folder, text, mismatches):
    (folder / "requirements.txt").write_text(text)
    (folder / "bounds.txt").write_text("pytest<1\nno-such-package==3\n")
    found = judge(described(folder)["requirements"], MismatchPolicy.REFUSE)
    assert found.status is (Verdict.REFUSE if mismatches else Verdict.OK)
    assert [one[: len(said)] for one, said in zip(found.mismatches, mismatches, strict=True)] == (
        mismatches
    )


def test_a_requirements_file_that_is_a_folder_is_not_met(folder):
    (folder / "requirements.txt").unlink()
    (folder / "requirements.txt").mkdir()
    assert judge(described(folder)["requirements"], MismatchPolicy.REFUSE).mismatches


def test_nobody_is_shown_the_password_of_a_wheels_url(folder):
    (folder / "requirements.txt").write_text("x @ https://me:hunter2@example.org/x-1-any.whl\n")
    assert described(folder)["requirements"] == ["x @ https://example.org/x-1-any.whl"]


def test_a_loader_that_is_not_ours_is_left_to_pyfunc(folder):
    flavors = {"python_function": {"loader_module": "mlflow.xgboost"}}
    write(folder, flavors=flavors)
    assert described(folder)["flavor"] == "python_function"


@pytest.mark.parametrize("size", [64 * 1024 + 1])
def test_a_big_example_is_named_but_not_carried(folder, size):
    (folder / "serving_input_example.json").write_text(json.dumps("x" * size))
    assert described(folder)["example"] == {"path": "serving_input_example.json", "serving": None}


def test_what_is_missing_in_an_example_is_null(folder):
    (folder / "serving_input_example.json").write_text('{"inputs": [1, NaN]}')
    assert described(folder)["example"]["serving"] == {"inputs": [1, None]}


UNWRITABLE = [
    '["\\ud800"]',
    '{"\\udfff": 1}',
    "[1e999]",
    "[-1e999]",
    "[" * 300 + "]" * 300,
]
"""Read by JSON's reader, and not to be written again, or not by every depth of the stack."""


@pytest.mark.parametrize(
    "text",
    [*(f'{{"inputs": {one}}}' for one in UNWRITABLE), "{", '{"inputs": [Infinity]}', "[" * 60_000],
)
def test_an_example_that_could_not_be_stored_is_named_but_not_carried(folder, text):
    (folder / "serving_input_example.json").write_text(text)
    assert described(folder)["example"]["serving"] is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "just text",
        "flavors: [1]",
        "{",
        "flavors: !!python/object/apply:os.system ['true']",
        "a: &a [1,1,1,1,1,1,1,1,1,1]\n"
        + "".join(
            f"{chr(98 + n)}: &{chr(98 + n)} [{','.join(['*' + chr(97 + n)] * 10)}]\n"
            for n in range(8)
        )
        + "flavors: {}",
        "a: &a [*a]\nflavors: {}",
        "flavors: " + "[" * 5000,
        "flavors: {x: \x00}",
        "flavors: {}\na: &a {k: v}\nb: {<<: [*a, *a]}",
        "flavors: {}\na: &a {k: v}\nb: {!!merge x: *a}",
        "flavors: {}\na: &a 1\nb: [" + "*a, " * 2000 + "]",
        "flavors: {}\na: 1" + ":1" * 500_000,
        "flavors: {}\na: !!int '1" + ":1" * 500_000 + "'",
        "flavors: {}\na: !!bool maybe",
        "flavors: {}\na: !!int ''",
        "flavors: {}\na: !!timestamp x",
        "flavors: {}\n? [a]\n: b",
    ],
)
def test_a_broken_mlmodel_is_refused_with_a_sentence(folder, text):
    (folder / "MLmodel").write_text(text)
    with pytest.raises(BrokenModelError, match="MLmodel cannot be read"):
        described(folder)


@pytest.mark.parametrize("depth", [30_000, 2_000_000])
def test_no_mlmodel_is_nested_so_deep_that_its_reader_dies(folder, depth):
    """In a process of its own, which a parser without a limit would end by a signal."""
    text = b"flavors: " + b"[" * (depth - 9)
    (folder / "MLmodel").write_bytes(text)
    program = (
        "import sys; from pathlib import Path; from registry_sync.artifacts import check_complete\n"
        "from registry_sync.errors import BrokenModelError\n"
        "try: check_complete(Path(sys.argv[1]))\n"
        "except BrokenModelError as error: print(error)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, folder], capture_output=True, text=True, check=True
    )
    assert "nested more than 100 deep" in ended.stdout


def test_what_an_mlmodel_says_twice_by_an_alias_is_read(folder):
    text = (folder / "MLmodel").read_text()
    (folder / "MLmodel").write_text(text + "metadata: {a: &a [1, 2], b: *a, c: '<<', d: 1:30}\n")
    assert check_complete(folder)["metadata"] == {"a": [1, 2], "b": [1, 2], "c": "<<", "d": 90}


def test_an_mlmodel_without_end_is_refused(folder):
    with (folder / "MLmodel").open("ab") as file:
        file.truncate(3 * 2**20)
    with pytest.raises(BrokenModelError, match="larger"):
        described(folder)


@pytest.mark.parametrize(
    "signature",
    [
        "text",
        *({"inputs": one} for one in ("{", "{}", "[NaN]", 1, *(f"[{u}]" for u in UNWRITABLE))),
    ],
)
def test_an_unreadable_signature_is_refused(folder, signature):
    write(folder, signature=signature)
    with pytest.raises(BrokenModelError, match="signature"):
        described(folder)


def test_a_signature_with_all_of_its_parts_is_read(folder):
    write(folder, signature=dict.fromkeys(("inputs", "outputs", "params"), "[]"))
    assert described(folder)["signature"] == {"inputs": [], "outputs": [], "params": []}


def test_a_signature_without_any_part_is_none(folder):
    write(folder, signature=dict.fromkeys(("inputs", "outputs", "params")))
    assert described(folder)["signature"] is None


def test_no_signature_is_fine(folder):
    write(folder, signature=None)
    assert described(folder)["signature"] is None


def test_a_model_without_pyfunc_cannot_be_served(folder):
    write(folder, flavors={"sklearn": {}})
    with pytest.raises(BrokenModelError, match="python_function"):
        described(folder)


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../x"])
def test_paths_out_of_the_folder_are_refused(folder, path):
    write(folder, flavors={"python_function": {"loader_module": "x", "data": path}})
    with pytest.raises(BrokenModelError, match="outside"):
        check_complete(folder)


@pytest.mark.parametrize(
    "name", ["MLmodel", "model.pkl", "conda.yaml", "python_env.yaml", "serving_input_example.json"]
)
def test_a_missing_file_is_incomplete_not_wrong(folder, name):
    (folder / name).unlink()
    with pytest.raises(IncompleteArtifactError) as caught:
        described(folder)
    assert caught.value.transient
    assert name in str(caught.value)


def test_code_models_name_their_file_by_where_the_publisher_had_it(folder):
    flavor = {"loader_module": "x", "model_code_path": "/home/somebody/else/model.py"}
    write(folder, flavors={"python_function": flavor})
    with pytest.raises(IncompleteArtifactError, match=r"'model\.py'"):
        check_complete(folder)
    (folder / "model.py").touch()
    check_complete(folder)
