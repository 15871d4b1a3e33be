"""The stand-in: honest checks over added lines, in Kimi's shapes, and never taken for a model."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core.exchange import STANDIN_MODEL, Kind
from worker.standin.brain import DISCLAIMER, answer
from worker.standin.checks import CHECKS, code_of, faults_in
from worker.standin.exchange import ShownLine, read
from worker.standin.server import running_standin

UNIT = """kind: findings
# The change
Fix the reader (map: src/a.py +3 -1)
=== begin 4f1d ===
F1 src/a.py
(renamed from src/b.py)
@@
9| |def read(path):
10|+|    try:
11|+|        return open(path).read()
-|-|    except:
|-|        eval(path)
12|+|    except:
13| |    except:
F2 "weird \\"name\\".py"
1|+|if x == None:
=== end 4f1d ===
Report defects."""


def test_the_marks_of_a_unit_are_read() -> None:
    question = read(UNIT)
    assert question.kind == "findings"
    assert [(file.id, file.path) for file in question.files] == [("F1", "src/a.py"), ("F2", 'weird "name".py')]
    first = question.files[0].lines
    assert first[0] == ShownLine(9, " ", "def read(path):")
    assert [line for line in first if line.sign == "-"] == [
        ShownLine(None, "-", "    except:"),
        ShownLine(None, "-", "        eval(path)"),
    ]


def test_only_line_feeds_end_a_line() -> None:
    question = read("kind: findings\nF1 a.py\n1|+|a\x0cb\u2028c\x85d\r\n2|+|e")
    assert [line.text for line in question.files[0].lines] == ["a\x0cb\u2028c\x85d\r", "e"]


@given(st.text())
def test_any_message_can_be_read_and_answered(text: str) -> None:
    assert isinstance(json.loads(answer(text)), dict)


def test_only_added_lines_are_found_fault_with_and_quoted_exactly() -> None:
    findings = json.loads(answer(UNIT))["findings"]
    assert [(item["file"], item["line"], item["quote"]) for item in findings] == [
        ("F1", 12, "    except:"),
        ("F2", 1, "if x == None:"),
    ]


def test_every_candidate_gets_a_verdict() -> None:
    verdicts = json.loads(answer("kind: verdicts\nC1 src/a.py:3\nx\nC2 src/b.py:9\nC1 again"))["verdicts"]
    assert [(item["candidate"], item["verdict"]) for item in verdicts] == [("C1", "confirmed"), ("C2", "confirmed")]


@pytest.mark.parametrize("kind", list(Kind))
def test_every_output_says_that_it_is_no_model(kind: Kind) -> None:
    text = answer(f"kind: {kind}\nF1 a.py\n1|+|except:\nC1 x")
    assert "no model" in text


def test_the_schemas_name_tells_the_kind_where_the_message_does_not() -> None:
    assert "summary" in json.loads(answer("nothing", kind="summary"))


BAD = [
    ("a.py", "    except:"),
    ("a.py", "def f(x, items=[]):"),
    ("a.py", "async def f(self, *, seen = {}):"),
    ("a.py", "if value == None:"),
    ("a.py", "if value != None:"),
    ("a.py", "result = eval(request.text)"),
    ("a.py", "exec(code)"),
    ("a.js", "const x = eval(input)"),
    ("settings.yml", "key: AKIAQWERTYUIOPASDFGH"),
    ("a.sh", "export T=ghp_" + "a1B2" * 9),
    ("key.pem", "-----BEGIN RSA PRIVATE KEY-----"),
    ("a.py", 'cursor.execute(f"SELECT * FROM t WHERE id = {id}")'),
    ("a.py", "q = \"SELECT a FROM t WHERE n = '%s'\" % name"),
    ("a.py", 'q = "DELETE FROM t WHERE n = \'" + name'),
    ("a.ts", "db.query(`SELECT * FROM t WHERE id = ${id}`)"),
    ("a.py", "subprocess.run(command, shell=True)"),
    ("a.py", "requests.get(url, verify=False)"),
    ("a.go", "&tls.Config{InsecureSkipVerify: true}"),
    ("a.py", "yaml.load(text)"),
    ("a.py", "text = Path(name).read_text()"),
    ("a.py", "path.write_text(json.dumps(value, indent=2))"),
    ("a.c", "<<<<<<< HEAD"),
]
GOOD = [
    ("a.py", "    except ValueError:"),
    ("a.py", "def f(x, items=()):"),
    ("a.py", "f(items=[])"),
    ("a.py", "if value is None:"),
    ("a.py", "# never write: if x == None"),
    ("a.py", 'print("x == None")'),
    ("a.py", "ast.literal_eval(text)"),
    ("a.py", "model.eval()"),
    ("a.py", "re.compile(r'eval(')"),
    ("a.md", "except:"),
    ("a.py", 'KEY = "AKIAIOSFODNN7EXAMPLE"'),
    ("a.py", 'cursor.execute("SELECT * FROM t WHERE id = %s", (id,))'),
    ("a.py", 'log.info(f"selected {name} from the list")'),
    ("a.py", "subprocess.run(command, shell=False)"),
    ("a.py", "requests.get(url, verify=True)"),
    ("a.py", "yaml.load(text, Loader=SafeLoader)"),
    ("a.py", 'text = path.read_text("utf-8")'),
    ("a.py", 'path.write_text(text, encoding="utf-8")'),
    ("a.rst", "======="),
]


@pytest.mark.parametrize(("path", "line"), BAD)
def test_a_fault_is_found_once(path: str, line: str) -> None:
    assert len(list(faults_in(line, path=path))) == 1


@pytest.mark.parametrize(("path", "line"), GOOD)
def test_sound_code_is_left_alone(path: str, line: str) -> None:
    assert list(faults_in(line, path=path)) == []


def test_every_check_is_shown_to_work() -> None:
    found = {id(check) for path, line in BAD for check in faults_in(line, path=path)}
    assert found == {id(check) for check in CHECKS}


@given(st.text(st.sampled_from("'\"`\\#/ ax"), max_size=30))
def test_blanking_literals_keeps_every_column(text: str) -> None:
    code = code_of(text, path="a.py")
    assert len(code) <= len(text) + 1
    assert all(char in (" ", text[column]) for column, char in enumerate(code[: len(text)]))


# ----------------------------------------------------------------------------------------- HTTP


@pytest.fixture(scope="module")
def base_url() -> Iterator[str]:
    with running_standin() as url:
        yield url


def request(*, stream: bool) -> dict[str, object]:
    return {"model": "kimi-k2.6", "messages": [{"role": "user", "content": UNIT}], "stream": stream}


def test_it_answers_in_one_piece(base_url: str) -> None:
    response = httpx.post(f"{base_url}/chat/completions", json=request(stream=False), trust_env=False, verify=False)
    value = response.json()
    assert value["model"] == STANDIN_MODEL
    assert value["choices"][0]["message"]["content"] == answer(UNIT)
    assert value["usage"]["total_tokens"] == value["usage"]["prompt_tokens"] + value["usage"]["completion_tokens"]
    assert response.headers["x-stand-in"] == "this is no model"


def test_it_answers_as_a_stream(base_url: str) -> None:
    response = httpx.post(f"{base_url}/chat/completions", json=request(stream=True), trust_env=False, verify=False)
    events = [line.removeprefix("data: ") for line in response.text.split("\n") if line]
    assert events[-1] == "[DONE]"
    chunks = [json.loads(event) for event in events[:-1]]
    assert chunks[-1]["usage"]["prompt_tokens"] > 0
    said = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks if chunk["choices"])
    assert said == answer(UNIT)
    assert DISCLAIMER in said


def test_models_balance_and_token_counts_have_kimis_shapes(base_url: str) -> None:
    with httpx.Client(trust_env=False, verify=False) as client:
        models = client.get(f"{base_url}/models").json()
        balance = client.get(f"{base_url}/users/me/balance").json()
        body = {"model": "x", "messages": [{"role": "user", "content": "four little words here"}]}
        estimate = client.post(f"{base_url}/tokenizers/estimate-token-count", json=body).json()
    assert [row["id"] for row in models["data"]] == [STANDIN_MODEL]
    assert balance["data"]["available_balance"] > 0
    assert estimate["data"]["total_tokens"] == 4


@pytest.mark.parametrize("body", [b"{", b"[]", b"{}", b'{"messages": 3}'])
def test_a_body_it_cannot_read_is_refused(base_url: str, body: bytes) -> None:
    response = httpx.post(f"{base_url}/chat/completions", content=body, trust_env=False, verify=False)
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "invalid_request_error"
