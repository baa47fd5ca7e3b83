"""The verdict on what a model was logged with."""

import platform

import pytest
import sklearn

from registry_sync.artifacts.environments.compatibility import MismatchPolicy, Verdict, judge

HERE = f"scikit-learn=={sklearn.__version__}"
ELSEWHERE = [
    "scikit-learn==1.0.1",
    "no-such-package==2",
    "pytest>=1",
    "only-elsewhere==1; sys_platform == 'win32'",
    "git+https://example.org/x",
]


@pytest.mark.parametrize(
    ("on_mismatch", "status"),
    [
        (MismatchPolicy.IGNORE, Verdict.OK),
        (MismatchPolicy.WARN, Verdict.WARN),
        (MismatchPolicy.REFUSE, Verdict.REFUSE),
    ],
)
def test_the_setting_says_what_a_mismatch_means(
    on_mismatch: MismatchPolicy, status: Verdict
) -> None:
    assert judge([HERE], on_mismatch).as_body() == {"status": "ok", "mismatches": []}
    assert judge(ELSEWHERE, on_mismatch).status is status


@pytest.mark.parametrize(
    ("logged", "mismatches"),
    [
        (platform.python_version(), ()),
        (".".join(platform.python_version_tuple()[:2]), ()),
        (None, ()),
        ("a name", ()),
        ("3.99.1", (f"Python (here {platform.python_version()}, logged with 3.99)",)),
        ("3.1", (f"Python (here {platform.python_version()}, logged with 3.1)",)),
    ],
)
def test_another_minor_version_of_python_is_a_mismatch(
    logged: str | None, mismatches: tuple[str, ...]
) -> None:
    assert judge([HERE], MismatchPolicy.WARN, python=logged).mismatches == mismatches


def test_a_mismatch_is_said_in_words() -> None:
    found = judge(ELSEWHERE, MismatchPolicy.REFUSE)
    assert found.mismatches == (
        f"scikit-learn (here {sklearn.__version__}, required ==1.0.1)",
        "no-such-package (not here, required ==2)",
        "git+https://example.org/x (cannot be compared)",
    )
    assert "set the tag gateway.environment to own" in found.reason


@pytest.mark.parametrize(
    ("line", "mismatches"),
    [
        (f"scikit-learn @ https://x/scikit_learn-{sklearn.__version__}-py3-none-any.whl", ()),
        (
            "scikit-learn @ https://x/scikit_learn-0.1%2Bcpu-py3-none-any.whl",
            (f"scikit-learn (here {sklearn.__version__}, required ==0.1+cpu)",),
        ),
        ("scikit-learn @ https://x/main", ("scikit-learn @ https://x/main (cannot be compared)",)),
        ("scikit-learn @ https://x/main ; sys_platform == 'win32'", ()),
        ("a; " + "(" * 5000, (("a; " + "(" * 97) + " (cannot be compared)",)),
    ],
    ids=["this wheel", "another wheel", "no wheel", "elsewhere", "nested"],
)
def test_a_wheel_has_the_version_of_its_name(line: str, mismatches: tuple[str, ...]) -> None:
    assert judge([line], MismatchPolicy.REFUSE).mismatches == mismatches


def test_a_reason_names_no_more_than_three() -> None:
    found = judge([f"no-such-{n}==1" for n in range(9)], MismatchPolicy.REFUSE)
    assert "no-such-2" in found.reason
    assert "no-such-3" not in found.reason
    assert "and 6 more" in found.reason
