"""Reads metrics with the public parser of Prometheus' Python client.

Usage: metrics.py HOST:PORT
"""

import sys
import urllib.request

from prometheus_client.parser import text_string_to_metric_families

# As Triton has them: the type, and the labels of a sample.
TRITON = {
    "nv_inference_request_success": ("counter", {"model", "version"}),
    "nv_inference_request_failure": ("counter", {"model", "version", "reason"}),
    "nv_inference_count": ("counter", {"model", "version"}),
    "nv_inference_exec_count": ("counter", {"model", "version"}),
    "nv_inference_request_duration_us": ("counter", {"model", "version"}),
    "nv_inference_queue_duration_us": ("counter", {"model", "version"}),
    "nv_inference_compute_input_duration_us": ("counter", {"model", "version"}),
    "nv_inference_compute_infer_duration_us": ("counter", {"model", "version"}),
    "nv_inference_compute_output_duration_us": ("counter", {"model", "version"}),
    "nv_inference_pending_request_count": ("gauge", {"model", "version"}),
    "nv_model_load_duration_secs": ("gauge", {"model", "version"}),
    "nv_cpu_memory_total_bytes": ("gauge", set()),
    "nv_gpu_utilization": ("gauge", None),
    "nv_gpu_memory_total_bytes": ("gauge", None),
    "nv_gpu_memory_used_bytes": ("gauge", None),
}


def main(address: str) -> None:
    with urllib.request.urlopen(f"http://{address}/metrics") as answer:
        text = answer.read().decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    for name, (kind, labels) in TRITON.items():
        family = families[name]
        assert family.type == kind, (name, family.type)
        if labels is not None:
            assert family.samples, name
            assert all(set(sample.labels) == labels for sample in family.samples), name
    reasons = {sample.labels["reason"] for sample in families["nv_inference_request_failure"].samples}
    assert reasons == {"REJECTED", "CANCELED", "BACKEND", "OTHER"}, reasons
    assert all(name.startswith(("nv_", "bulkhead_")) for name in families), families.keys()
    # The parser leaves `_total` out of the names of counters.
    [exits] = [families[name] for name in families if name == "bulkhead_worker_exits"]
    assert exits.type == "counter"
    histogram = families["bulkhead_request_duration_seconds"]
    assert histogram.type == "histogram"
    buckets = [s for s in histogram.samples if s.name.endswith("_bucket")]
    counts = [s.value for s in buckets]
    assert counts == sorted(counts) and counts[-1] == 1, counts
    assert buckets[-1].labels["le"] == "+Inf"
    state = {s.labels["model"]: s.labels["state"] for s in families["bulkhead_worker_state"].samples}
    assert state == {"m": "ready"}, state
    limit = families["bulkhead_worker_memory_limit_bytes"].samples
    assert [s.value for s in limit] == [64 << 20], limit


main(sys.argv[1])
