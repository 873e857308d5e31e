"""What users of the public Python client do, against a server with three echo models.

Usage: client.py HOST:PORT
"""

import sys
from collections.abc import Callable

import numpy
import tritonclient.http as http
from tritonclient.utils import InferenceServerException

VALUES = numpy.array([1.5, -2.0, 0.1, 3e38], numpy.float32)
WORDS = numpy.array([b"", "zw\u00f6lf".encode(), b"\x00\xff" * 100, b"plain"], numpy.object_)


def health(client: http.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("echo")
    assert client.is_model_ready("echo", "1")
    assert not client.is_model_ready("echo", "2")
    assert not client.is_model_ready("ghost")


def metadata(client: http.InferenceServerClient) -> None:
    server = client.get_server_metadata()
    assert server["name"] == "bulkhead", server
    assert "binary_tensor_data" in server["extensions"], server
    for model in (client.get_model_metadata("echo"), client.get_model_metadata("echo", "1")):
        assert model["name"] == "echo" and model["versions"] == ["1"], model
        assert model["inputs"][0] == {"name": "INPUT0", "datatype": "FP32", "shape": [-1]}, model


def infer_in_every_form(client: http.InferenceServerClient) -> None:
    for binary_input in (True, False):
        for output in (None, True, False):
            outputs = None
            if output is not None:
                outputs = [http.InferRequestedOutput("OUTPUT0", binary_data=output)]
            given = tensor("INPUT0", VALUES, "FP32", binary_input)
            result = client.infer("echo", [given], outputs=outputs, request_id="seven")
            assert numpy.array_equal(result.as_numpy("OUTPUT0"), VALUES), result.get_response()
            assert result.get_response()["id"] == "seven"
            assert result.get_response()["model_version"] == "1"


def infer_with_options(client: http.InferenceServerClient) -> None:
    given = tensor("INPUT0", VALUES, "FP32", True)
    result = client.infer("echo", [given], model_version="1", timeout=5_000_000)
    assert numpy.array_equal(result.as_numpy("OUTPUT0"), VALUES)
    result = client.infer("echo", [given], headers={"X-Mine": "1"}, query_params={"a": "b c"})
    assert numpy.array_equal(result.as_numpy("OUTPUT0"), VALUES)


def infer_words(client: http.InferenceServerClient) -> None:
    for output in (True, False):
        # Only text can travel in JSON.
        words = WORDS if output else WORDS[[0, 1, 3]]
        for binary_input in (True, False) if not output else (True,):
            given = tensor("INPUT0", words, "BYTES", binary_input)
            wanted = http.InferRequestedOutput("OUTPUT0", binary_data=output)
            answer = client.infer("words", [given], outputs=[wanted]).as_numpy("OUTPUT0")
            back = [w if isinstance(w, bytes) else w.encode() for w in answer]
            assert back == list(words), (output, binary_input, back)


def infer_halves(client: http.InferenceServerClient) -> None:
    halves = numpy.array([0.5, -65504, 6e-8], numpy.float16)
    result = client.infer("halves", [tensor("INPUT0", halves, "FP16", True)])
    assert numpy.array_equal(result.as_numpy("OUTPUT0"), halves)


def infer_nothing(client: http.InferenceServerClient) -> None:
    empty = numpy.zeros([0], numpy.float32)
    result = client.infer("echo", [tensor("INPUT0", empty, "FP32", True)])
    assert result.as_numpy("OUTPUT0").shape == (0,)


def compression(client: http.InferenceServerClient) -> None:
    large = numpy.tile(VALUES, 10_000)
    for coding in ("gzip", "deflate"):
        for binary in (True, False):
            result = client.infer(
                "echo",
                [tensor("INPUT0", large, "FP32", binary)],
                outputs=[http.InferRequestedOutput("OUTPUT0", binary_data=binary)],
                request_compression_algorithm=coding,
                response_compression_algorithm=coding,
            )
            assert numpy.array_equal(result.as_numpy("OUTPUT0"), large), (coding, binary)


def many_at_once(client: http.InferenceServerClient) -> None:
    given = tensor("INPUT0", VALUES, "FP32", True)
    for answer in [client.async_infer("echo", [given]) for _ in range(50)]:
        assert numpy.array_equal(answer.get_result().as_numpy("OUTPUT0"), VALUES)


def errors(client: http.InferenceServerClient) -> None:
    given = tensor("INPUT0", VALUES, "FP32", True)
    command = numpy.array([b"fail out of luck"], numpy.object_)
    cases: list[tuple[str, str, Callable[[], object]]] = [
        ("404", "unknown model", lambda: client.infer("ghost", [given])),
        ("404", "version 9", lambda: client.infer("echo", [given], model_version="9")),
        ("404", "unknown model", lambda: client.get_model_metadata("ghost")),
        ("400", "GHOST", lambda: client.infer("echo", [tensor("GHOST", VALUES, "FP32", True)])),
        ("400", "INPUT0", lambda: client.infer("echo", [tensor("INPUT0", WORDS, "BYTES", True)])),
        ("400", "ghost", lambda: client.infer(
            "echo", [given], outputs=[http.InferRequestedOutput("ghost")])),
        ("500", "out of luck", lambda: client.infer(
            "echo", [given, tensor("COMMAND", command, "BYTES", True)])),
        ("404", "ghost", lambda: client.load_model("ghost")),
        ("404", "Not Found", lambda: client.get_inference_statistics("echo")),
    ]  # fmt: skip
    for status, says, call in cases:
        try:
            answer = call()
        except InferenceServerException as error:
            assert status in str(error.status()) and says in error.message(), (says, error)
        else:
            raise AssertionError(f"no error that says {says!r} but {answer}")


def repository(client: http.InferenceServerClient) -> None:
    def states() -> dict[str, str]:
        return {line["name"]: line.get("state", "") for line in client.get_model_repository_index()}

    assert states() == {"echo": "READY", "words": "READY", "halves": "READY"}, states()
    client.unload_model("words")
    assert not client.is_model_ready("words")
    assert states()["words"] == "UNAVAILABLE", states()
    client.load_model("words")
    assert client.is_model_ready("words")
    infer_words(client)
    # A load of what is loaded replaces it.
    client.load_model("words")
    infer_words(client)


def tensor(name: str, values: numpy.ndarray, datatype: str, binary: bool) -> http.InferInput:
    given = http.InferInput(name, list(values.shape), datatype)
    given.set_data_from_numpy(values, binary_data=binary)
    return given


CHECKS = [
    health, metadata, infer_in_every_form, infer_with_options, infer_words, infer_halves,
    infer_nothing, compression, many_at_once, errors, repository, health,
]  # fmt: skip


def main(address: str) -> None:
    with http.InferenceServerClient(address, concurrency=8) as client:
        for check in CHECKS:
            print(check.__name__, flush=True)
            check(client)


if __name__ == "__main__":
    main(sys.argv[1])
