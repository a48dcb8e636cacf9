"""The built-in corpus: its rules on made-up modules and packages, and what comes of the standard library."""

import re
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from toolkit.data.text.docstrings import clean_docstring
from toolkit.data.text.python_docs import (
    ModuleDocumentation,
    iterate_python_documentation,
    mask_package_names,
    read_module,
)
from toolkit.errors import UserError


def cleaned(text: str) -> list[str]:
    return clean_docstring(textwrap.dedent(text)).split("\n\n")


def test_hard_wrapped_lines_become_one_paragraph_and_markup_goes():
    assert cleaned("""
        Applies :class:`~torch.nn.Linear` to ``x``,
        as **described** in `the guide <https://example.org/guide>`_ [1]_.

        A second paragraph with a *word* and a cafe\u0301, non-
        negative :math:`\\frac{a}{b}` included.
    """) == [
        "Applies torch.nn.Linear to x, as described in the guide.",
        "A second paragraph with a word and a caf\u00e9, non-negative a / b included.",
    ]


def test_examples_code_and_tables_go_and_their_lead_in_ends_as_a_sentence():
    text = clean_docstring(
        textwrap.dedent("""
        Compute something useful from numbers. For example::

            total = compute(1, 2)

            more = 3

        The doctest below is left out:

        >>> compute(1, 2)
        array([1,
               2])

        ```python
        >>> compute(3)

        hidden = True
        ```

        .. code-block:: python

            hidden_too = 1

        =====  =====
        A      B
        =====  =====
        False  True
        =====  =====

        The last sentence of them all.
    """)
    )
    assert text.split("\n\n") == [
        "Compute something useful from numbers. For example.",
        "The doctest below is left out.",
        "The last sentence of them all.",
    ]


def test_numpydoc_sections_become_named_descriptions():
    assert cleaned("""
        Return the mean of the values along an axis.

        Parameters
        ----------
        a, b : array_like of shape (n,)
            The values to average,
            which may be masked.

            .. versionadded:: 1.2
        axis : int, optional
        **kwargs
            Passed to the `reducer` function.

        Returns
        -------
        ndarray
            The mean value of each row.

        See Also
        --------
        median : The value in the middle of the others.

        Notes
        -----
        The mean is the sum divided by the count.

        References
        ----------
        .. [1] A. Author, "A title that nobody needs to learn by heart".
    """) == [
        "Return the mean of the values along an axis.",
        "a, b: The values to average, which may be masked.",
        "kwargs: Passed to the reducer function.",
        "ndarray: The mean value of each row.",
        "The mean is the sum divided by the count.",
    ]


def test_google_and_field_list_sections_become_named_descriptions():
    assert cleaned("""
        Generate a sequence of tokens from a prompt.

        Args:
            max_length (`int`, *optional*, defaults to `tuple(20)`):
                The longest sequence to generate.
            temperature (float): How flat to make
                the distribution.

        Returns:
            [`~utils.Output`]: The tokens and their scores.
    """) == [
        "Generate a sequence of tokens from a prompt.",
        "max_length: The longest sequence to generate.",
        "temperature: How flat to make the distribution.",
        "utils.Output: The tokens and their scores.",
    ]
    assert cleaned("""
        Open the connection to a server.

        :param str host: the name of the server
            to connect to
        :type host: str
        :return: the open connection of this client
    """) == [
        "Open the connection to a server.",
        "host: the name of the server to connect to",
        "the open connection of this client",
    ]


def test_notes_lists_placeholders_and_addresses():
    assert cleaned("""
        Sets the mode of the model. {common_arguments}

        .. note::
            This changes the model in place.

        - the first item of
          the list
        - the second item of it

        Keep this sentence. See https://example.org/a.b for more. Keep that one (https://example.org).

        > [!TIP]
        > A quotation in Markdown is prose.
    """) == [
        "Sets the mode of the model.",
        "This changes the model in place.",
        "the first item of the list",
        "the second item of it",
        "Keep this sentence. Keep that one.",
        "A quotation in Markdown is prose.",
    ]


@pytest.mark.parametrize(
    "text", ["", "Too short.", "f(x, y, z=None, *, keyword=True, another_keyword=False) -> int"]
)
def test_what_is_not_prose_is_dropped(text):
    assert clean_docstring(text) == ""


SENTENCE = "This is sentence {} about the {}, long enough to be kept among the docstrings."


def test_read_module_finds_every_docstring_in_source_order_and_runs_nothing(tmp_path: Path):
    canary = tmp_path / "imported"
    path = tmp_path / "sample.py"
    path.write_text(
        textwrap.dedent(f'''
        """{SENTENCE.format("one", "module")}"""
        open({str(canary)!r}, "w").close()
        class Outer:
            """{SENTENCE.format("two", "class")}"""
            text = """A string that is not documentation, however long it may be made by its author."""
            async def method(self):
                """{SENTENCE.format("three", "method")}"""
                def inner():
                    """{SENTENCE.format("four", "inner function")}"""
        if True:
            def conditional():
                """{SENTENCE.format("five", "branch")}"""
        add_docstr(Outer, r"""outer(x) -> int

        {SENTENCE.format("six", "extension")} {{shared}}
        """.format(**shared))
    ''')
    )
    assert read_module(path, "sample", "mine") == ModuleDocumentation(
        "mine",
        "sample",
        tuple(
            SENTENCE.format(number, place)
            for number, place in [
                ("one", "module"),
                ("two", "class"),
                ("three", "method"),
                ("four", "inner function"),
                ("five", "branch"),
                ("six", "extension"),
            ]
        ),
    )
    assert not canary.exists()


@pytest.mark.parametrize(
    "source", [b'"""\xff\xfe not text', b'def broken(:\n    """Documentation"""', b'"""a"""\0', b""]
)
def test_a_file_that_is_not_python_is_none(tmp_path: Path, source: bytes):
    (tmp_path / "broken.py").write_bytes(source)
    assert read_module(tmp_path / "broken.py", "broken", "mine") is None


@pytest.fixture
def made_up_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package that must not be imported, with tests, a vendored copy, a broken file and text said twice."""
    root = tmp_path / "made_up_package"
    own = "Something that only the module {0} says, in a sentence of a certain length, with {1} in it. " * 3
    repeated = "Copied from BertModel to {}Model, as boilerplate is, with all of its words in the same order."
    words = {"alpha": "apples", "beta": "bread", "gamma": "grapes"}
    files = {
        "thin.py": '"""Hi."""',
        "__init__.py": 'raise RuntimeError("imported")',
        "broken.py": '"""Fine""" but not Python',
    }
    files |= {
        f"{n}.py": f'"""{own.format(n, w)}\n\n{repeated.format(n.title())}\n"""' for n, w in words.items()
    }
    files |= {f"{f}/x.py": f'"""{own.format(f, "tests")}"""' for f in ("tests", "_vendor", "deep/externals")}
    files |= {"test_beta.py": f'"""{own.format("test", "tests")}"""'}
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    return root.name


def test_a_package_is_read_without_importing_it_and_says_nothing_twice(made_up_package, caplog):
    documents = list(iterate_python_documentation([made_up_package], num_workers=0))
    assert made_up_package not in sys.modules
    assert [d.module for d in documents] == [
        f"{made_up_package}.{name}" for name in ("alpha", "beta", "gamma")
    ]
    assert {d.package for d in documents} == {made_up_package}
    assert ["boilerplate" in "".join(d.docstrings) for d in documents] == [True, False, False]
    assert "Skipped 1 of 6 files" in caplog.text


def test_the_result_does_not_depend_on_the_number_of_workers_or_the_order_asked_for(made_up_package):
    alone = list(iterate_python_documentation([made_up_package, "tqdm", "yaml"], num_workers=0))
    assert len(alone) > 10
    assert list(iterate_python_documentation(["yaml", "tqdm", made_up_package], num_workers=3)) == alone


def test_the_standard_library_is_clean_prose():
    documents = list(iterate_python_documentation(["python"]))
    modules = [document.module for document in documents]
    assert modules == sorted(set(modules))
    assert len(modules) > 300
    assert {"argparse", "asyncio.locks", "pydoc_data.topics.compound"} <= set(modules)
    assert not any(re.search(r"(^|\.)(tests?|idle_test|site-packages)(\.|$)", module) for module in modules)

    docstrings = [text for document in documents for text in document.docstrings]
    assert sum(map(len, docstrings)) > 1_000_000
    paragraphs = [paragraph for text in docstrings for paragraph in text.split("\n\n")]
    assert len(set(paragraphs)) == len(paragraphs)
    assert all(paragraph == " ".join(paragraph.split()) for paragraph in paragraphs)
    noise = [p for p in paragraphs if re.search(r"^>>> |`|https?://\w|:(?:class|func|meth|mod):", p)]
    assert noise == []


def test_a_package_that_is_not_there_is_refused_at_once():
    with pytest.raises(UserError, match="'no_such_package'.*Install it, or leave it out"):
        iterate_python_documentation(["python", "no_such_package"])
    with pytest.raises(TypeError, match="sequence of names"):
        iterate_python_documentation("torch")


def test_masking_leaves_no_package_name():
    text = (
        "torch.nn.Linear PyTorch libtorch torch_dtype from_numpy np.ndarray NumPy scipy.stats sp.sparse "
        "pd.DataFrame pandas' sklearn scikit-learn scikit_learn plt.plot matplotlib.pyplot mpl_toolkits "
        "Transformers 🤗 Hugging Face huggingface_hub HF CPython IPython python3 stdlib"
    )
    names = (
        r"(?i)torch|numpy|\bnp\b|scipy|\bsp\b|pandas|\bpd\b|sklearn|scikit|learn|plt|mpl|matplotlib|pyplot|"
    )
    names += r"transformers|🤗|hugging|\bhf\b|python|stdlib"
    assert not re.search(names, mask_package_names(text))
    assert mask_package_names("See torch.nn.Linear.") == "See package.nn.Linear."


def test_masking_leaves_other_words_alone():
    text = (
        "The transformer maps an NP-hard input to a spd matrix; expand and compute, spanning a split input."
    )
    assert mask_package_names(text) == text


def test_workers_leave_when_their_parent_is_killed():
    code = """
import os, time
from concurrent.futures import ProcessPoolExecutor
from toolkit.data.text.python_docs import _start_worker
def pid(seconds):
    time.sleep(seconds)
    return os.getpid()
pool = ProcessPoolExecutor(2, initializer=_start_worker, initargs=(os.getpid(),))
print(*set(pool.map(pid, [0.2, 0.2])), flush=True)
time.sleep(30)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    workers = [int(pid) for pid in process.stdout.readline().split()]
    assert workers
    process.kill()
    process.wait()
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]
