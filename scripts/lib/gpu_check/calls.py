"""Single requests to the server."""

import http.client
import json


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.body = status, body
        self.json_bytes = int(headers.get("Inference-Header-Content-Length") or len(body))

    @property
    def good(self):
        return self.status == 200

    @property
    def data(self):
        """The bytes of the only output."""
        return self.body[self.json_bytes :]

    @property
    def error(self):
        try:
            return json.loads(self.body)["error"]
        except (ValueError, KeyError, TypeError):
            return self.body[:200].decode(errors="replace")


def post(address, path, body=b"", headers=None, timeout=60):
    connection = http.client.HTTPConnection(address, timeout=timeout)
    try:
        connection.request("POST", path, body, headers or {})
        answer = connection.getresponse()
        return Answer(answer.status, answer.headers, answer.read())
    finally:
        connection.close()


def infer(address, model, tensors, timeout=60):
    """Tensors are (name, datatype, shape, bytes). It is tried once, whatever becomes of its worker."""
    described = [
        {"name": name, "datatype": kind, "shape": shape, "parameters": {"binary_data_size": len(data)}}
        for name, kind, shape, data in tensors
    ]
    parameters = {"binary_data_output": True, "retry": False}
    head = json.dumps({"inputs": described, "parameters": parameters}).encode()
    body = b"".join([head, *(data for *_, data in tensors)])
    headers = {"Inference-Header-Content-Length": str(len(head)), "Content-Type": "application/octet-stream"}
    return post(address, f"/v2/models/{model}/infer", body, headers, timeout)


def load(address, model):
    return post(address, f"/v2/repository/models/{model}/load")


def unload(address, model):
    return post(address, f"/v2/repository/models/{model}/unload")


def index(address):
    return json.loads(post(address, "/v2/repository/index", timeout=5).body)
