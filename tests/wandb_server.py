"""A stand-in for the service of Weights & Biases on 127.0.0.1: what the real client asks, kept in memory, with faults.

It answers GraphQL, the stream of a run's files, and uploads, as far as the client of version 0.31 needs it.
"""

import base64
import gzip
import hashlib
import json
import re
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import yaml

ENTITY = "someone"
KEY = "x" * 40
# What the service does instead of answering: "500", "hang" (accepts and never answers), "disconnect", "slow" (0.5 s).
FAULTS = ("500", "hang", "disconnect", "slow")


@dataclass
class ServedRun:
    """What the service knows of one run."""

    name: str
    values: dict[str, Any] = field(default_factory=dict)  # of UpsertBucket: displayName, groupName, jobType, tags, ...
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    history: dict[int, dict[str, Any]] = field(default_factory=dict)  # row of each offset
    n_events: int = 0
    exitcode: int | None = None
    preempting: bool = False
    used: list[str] = field(default_factory=list)  # ids of artifacts
    files: dict[str, bytes] = field(default_factory=dict)
    alerts: list[dict[str, Any]] = field(default_factory=list)

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [self.history[i] for i in sorted(self.history)]

    @property
    def steps(self) -> list[int]:
        return [row["_step"] for row in self.rows]


class Service:
    """`with Service() as service:` listens at `service.url`; `service.fault` is one of FAULTS, or ""."""

    def __init__(self, fault: str = ""):
        self.fault = fault
        self.runs: dict[str, ServedRun] = {}
        self.artifacts: dict[str, dict[str, Any]] = {}
        self.sweeps: dict[str, dict[str, Any]] = {}
        self.views: list[dict[str, Any]] = []
        self.asked: Counter[str] = Counter()  # operations and paths
        self.lock = threading.Lock()
        self.closed = threading.Event()
        self.stopped: set[str] = set()  # runs that somebody asked to stop

    def __enter__(self) -> "Service":
        service = self

        class Handler(_Handler):
            served = service

        self.http = _Http(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"
        threading.Thread(target=lambda: self.http.serve_forever(0.05), daemon=True).start()
        return self

    def __exit__(self, *error: Any) -> None:
        self.closed.set()
        self.http.shutdown()
        self.http.server_close()

    @property
    def environment(self) -> dict[str, str]:
        return {
            "WANDB_BASE_URL": self.url,
            "WANDB_API_KEY": KEY,
            "WANDB_ERROR_REPORTING": "false",
            "WANDB_X_FILE_STREAM_TRANSMIT_INTERVAL": "0.3",
        }

    def run(self, name: str) -> ServedRun:
        return self.runs.setdefault(name, ServedRun(name))

    def artifacts_of(self, kind: str) -> list[dict[str, Any]]:
        return [a for a in self.artifacts.values() if a["type"] == kind]

    # GraphQL

    def answer(self, name: str, query: str, v: dict[str, Any]) -> dict[str, Any]:
        found = getattr(self, f"_{name}", None)
        return found(query, v) if found else {}

    def _Viewer(self, query: str, v: dict[str, Any]) -> dict[str, Any]:
        teams = {"edges": [{"node": {"name": ENTITY}}]}
        viewer = {
            "id": "VXNlcjox",
            "entity": ENTITY,
            "username": ENTITY,
            "flags": "{}",
            "teams": teams,
            "email": "a@b.c",
        }
        return {"viewer": viewer | {"name": ENTITY, "admin": False, "apiKeys": {"edges": []}}, "serverInfo": None}

    def _ServerFeaturesQuery(self, query: str, v: dict[str, Any]) -> dict[str, Any]:
        return {"serverInfo": {"features": []}}

    def _RunResumeStatus(self, query: str, v: dict[str, Any]) -> dict[str, Any]:
        run = self.runs.get(v["name"])
        if run is None or not run.values:
            return {"model": {"id": "p", "name": v["project"], "entity": {"name": ENTITY, "id": "e"}, "bucket": None}}
        tail = [json.dumps(row) for row in run.rows[-1:]]
        bucket = {
            "id": "r-" + run.name,
            "name": run.name,
            "summaryMetrics": json.dumps(run.summary),
            "displayName": run.values.get("displayName"),
            "logLineCount": 0,
            "historyLineCount": len(run.history),
            "eventsLineCount": run.n_events,
            "historyTail": json.dumps(tail),
            "eventsTail": json.dumps([]),
            "config": json.dumps(run.config),
            "tags": run.values.get("tags") or [],
            "wandbConfig": json.dumps({"t": 1}),
        }
        return {"model": {"id": "p", "name": v["project"], "entity": {"name": ENTITY, "id": "e"}, "bucket": bucket}}

    def _UpsertBucket(self, query: str, v: dict[str, Any]) -> dict[str, Any]:
        run = self.run(v["name"])
        is_new = not run.values
        run.values |= {k: x for k, x in v.items() if x is not None}
        if v.get("config"):
            run.config = json.loads(v["config"])
        if v.get("summaryMetrics"):
            run.summary |= json.loads(v["summaryMetrics"])
        project = {"id": "p", "name": v.get("project"), "entity": {"id": "e", "name": ENTITY}}
        bucket = {
            "id": "r-" + run.name,
            "name": run.name,
            "displayName": run.values.get("displayName") or run.name,
            "description": None,
            "config": json.dumps(run.config),
            "sweepName": run.values.get("sweep"),
            "historyLineCount": len(run.history),
            "project": project,
        }
        return {"upsertBucket": {"bucket": bucket, "inserted": is_new}}

    def _ArtifactType(self, query: str, v: dict[str, Any]) -> dict[str, Any]:
        return {"project": {"artifact": None}}

    def _ArtifactByID(self, query: str, v: dict[str, Any]) -> dict[str, Any]:
        return {"artifact": self._whole(self.artifacts[v["id"]])}

    def _ArtifactMembershipByName(self, query: str, v: dict[str, Any]) -> dict[str, Any]:
        collection, _, alias = v["name"].partition(":")
        found = [a for a in self.artifacts.values() if a["name"] == collection and alias in (*a["aliases"], "v0")]
        membership = None
        if found:
            whole = self._whole(found[-1])
            membership = {"__typename": "ArtifactCollectionMembership", "id": "m", "versionIndex": 0, "aliases": []}
            membership |= {"createdAt": whole["createdAt"], "artifactCollection": whole["artifactSequence"]}
            membership |= {"artifact": whole}
        return {"project": {"artifactCollectionMembership": membership}}

    def _whole(self, artifact: dict[str, Any]) -> dict[str, Any]:
        project = {"id": "cA==", "internalId": "cA==", "name": "asr_lab", "entity": {"id": "ZQ==", "name": ENTITY}}
        sequence = {"__typename": "ArtifactSequence", "id": "c2Vx", "name": artifact["name"], "project": project}
        collection = sequence
        return {
            "__typename": "Artifact",
            "id": artifact["id"],
            "artifactSequence": sequence,
            "versionIndex": 0,
            "artifactType": {"name": artifact["type"]},
            "description": None,
            "metadata": json.dumps(artifact["metadata"]),
            "ttlDurationSeconds": 0,
            "ttlIsInherited": False,
            "tags": [],
            "historyStep": None,
            "state": artifact["state"],
            "size": 0,
            "digest": artifact["digest"],
            "commitHash": None,
            "fileCount": len(artifact["files"]),
            "createdAt": "2026-01-01T00:00:00",
            "updatedAt": None,
            "aliases": [
                {"__typename": "ArtifactAlias", "id": "YQ==", "alias": a, "artifactCollection": collection}
                for a in artifact["aliases"]
            ],
        }

    def _RunStoppedStatus(self, query: str, v: dict[str, Any]) -> dict[str, Any]:
        name = v.get("runId") or v.get("run")
        return {"project": {"run": {"stopped": name in self.stopped}}}

    def _NotifyScriptableRunAlert(self, query: str, v: dict[str, Any]) -> dict[str, Any]:
        self.run(v["runName"]).alerts.append(v)
        return {"notifyScriptableRunAlert": {"success": True}}

    def _CreateRunFiles(self, query: str, v: dict[str, Any]) -> dict[str, Any]:
        run = v.get("run") or v.get("runName")
        files = [{"name": f, "uploadUrl": f"{self.url}/upload/run/{run}/{f}"} for f in v["files"]]
        return {"createRunFiles": {"runID": f"r-{run}", "uploadHeaders": [], "files": files}}

    def _CreateArtifact(self, query: str, v: dict[str, Any]) -> dict[str, Any]:
        given = v.get("input") or v
        name = (given.get("artifactCollectionNames") or [given.get("artifactCollectionName")])[0]
        same = [a for a in self.artifacts.values() if (a["name"], a["digest"]) == (name, given["digest"])]
        if same:
            found = same[0]
        else:
            found = {
                "id": f"a{len(self.artifacts)}",
                "name": name,
                "type": given["artifactTypeName"],
                "digest": given["digest"],
                "metadata": json.loads(given.get("metadata") or "{}"),
                "state": "PENDING",
                "runs": [],
                "aliases": [a["alias"] for a in given.get("aliases") or []],
                "files": {},
            }
            self.artifacts[found["id"]] = found
        if given.get("runName"):
            found["runs"].append(given["runName"])
        sequence = {"id": "seq-" + name, "latestArtifact": {"id": found["id"], "versionIndex": 0}}
        answer = {"id": found["id"], "state": found["state"], "artifactSequence": sequence}
        return {"createArtifact": {"artifact": answer}}

    def _CreateArtifactManifest(self, query: str, v: dict[str, Any]) -> dict[str, Any]:
        given = v.get("input") or v
        artifact = given.get("artifactID")
        url = f"{self.url}/upload/manifest/{artifact}" if given.get("includeUpload") else None
        file = {"id": "f", "name": given.get("name"), "displayName": given.get("name"), "uploadUrl": url}
        manifest = {"id": f"m-{artifact}", "file": file | {"uploadHeaders": []}}
        return {"createArtifactManifest": {"artifactManifest": manifest}}

    def _CreateArtifactFiles(self, query: str, v: dict[str, Any]) -> dict[str, Any]:
        specs = (v.get("input") or v).get("artifactFiles") or v.get("artifactFiles")
        edges = []
        for spec in specs:
            path = f"{spec['artifactID']}/{spec['name']}"
            node = {"id": path, "name": spec["name"], "displayName": spec["name"], "uploadHeaders": []}
            node |= {"uploadUrl": f"{self.url}/upload/artifact/{path}", "artifact": {"id": spec["artifactID"]}}
            node |= {"storagePath": path, "uploadMultipartUrls": None}
            edges.append({"node": node})
        return {"createArtifactFiles": {"files": {"edges": edges}}}

    def _CommitArtifact(self, query: str, v: dict[str, Any]) -> dict[str, Any]:
        artifact = (v.get("input") or v)["artifactID"]
        self.artifacts[artifact]["state"] = "COMMITTED"
        return {"commitArtifact": {"artifact": {"id": artifact, "digest": self.artifacts[artifact]["digest"]}}}

    def _UseArtifact(self, query: str, v: dict[str, Any]) -> dict[str, Any]:
        given = v.get("input") or v
        run, artifact = given.get("runName"), given.get("artifactID")
        self.run(run).used.append(artifact)
        return {"useArtifact": {"artifact": {"id": artifact, "digest": "", "description": "", "state": "COMMITTED"}}}

    def _GetDefaultEntity(self, query: str, v: dict[str, Any]) -> dict[str, Any]:
        return {"viewer": {"id": "VXNlcjox", "entity": ENTITY}}

    def _UpsertSweep(self, query: str, v: dict[str, Any]) -> dict[str, Any]:
        name = f"sweep{len(self.sweeps)}"
        self.sweeps[name] = v | {"config": v["config"], "given": []}
        project = {"id": "p", "name": v.get("projectName"), "entity": {"id": "e", "name": ENTITY}}
        sweep = {"id": name, "name": name, "method": "grid", "state": "RUNNING", "project": project}
        return {"upsertSweep": {"sweep": sweep, "configValidationWarnings": []}}

    def _SweepWithRuns(self, query: str, v: dict[str, Any]) -> dict[str, Any]:
        sweep = {"id": v["sweep"], "name": v["sweep"], "config": self.sweeps[v["sweep"]]["config"], "state": "RUNNING"}
        return {"project": {"sweep": sweep | {"runs": {"edges": []}, "controller": None, "scheduler": None}}}

    def _CreateAgent(self, query: str, v: dict[str, Any]) -> dict[str, Any]:
        return {"createAgent": {"agent": {"id": v["sweep"]}}}

    def _Heartbeat(self, query: str, v: dict[str, Any]) -> dict[str, Any]:
        """The first cell of the sweep's grid to the first agent, and then no more."""
        sweep, commands = self.sweeps[v["id"]], []
        config = yaml.safe_load(sweep["config"])
        if not sweep["given"]:
            args = {key: {"value": axis["values"][0]} for key, axis in config["parameters"].items()}
            sweep["given"].append(args)
            commands = [{"type": "run", "run_id": "agentrun", "program": config["program"], "args": args}]
        elif not json.loads(v["runState"]):
            commands = [{"type": "exit"}]
        return {"agentHeartbeat": {"agent": {"id": v["id"]}, "commands": json.dumps(commands)}}

    def _UpsertView2(self, query: str, v: dict[str, Any]) -> dict[str, Any]:
        self.views.append(v)
        return {"upsertView": {"view": {"id": "dmlldw==", "name": v.get("name") or "nw-1-v"}, "inserted": True}}


class _Http(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *args: Any) -> None:
        """A client that has gone is nothing to print."""


class _Handler(BaseHTTPRequestHandler):
    served: Service
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        """Silent."""

    def do_GET(self) -> None:
        if self._healthy():
            self._send({})

    def do_PUT(self) -> None:
        body = self._body()
        if not self._healthy():
            return
        kind, _, rest = self.path.removeprefix("/upload/").partition("/")
        owner, _, name = rest.partition("/")
        with self.served.lock:
            if kind == "run":
                self.served.run(owner).files[name] = body
            elif kind == "artifact":
                self.served.artifacts[owner]["files"][name] = body
            else:
                self.served.artifacts[owner]["manifest"] = json.loads(body)
        self._send({})

    def do_POST(self) -> None:
        body = self._body()
        if not self._healthy():
            return
        if self.path.startswith("/graphql"):
            self._graphql(json.loads(body))
        elif "/file_stream" in self.path:
            self._stream(json.loads(body))
        else:
            self.served.asked[self.path] += 1
            self._send({})

    def _graphql(self, asked: dict[str, Any]) -> None:
        query = asked["query"]
        found = re.search(r"(?:query|mutation)\s+(\w+)", query)
        name = asked.get("operationName") or (found.group(1) if found else "?")
        with self.served.lock:
            self.served.asked[name] += 1
            answer = self.served.answer(name, query, asked.get("variables") or {})
        self._send({"data": answer})

    def _stream(self, sent: dict[str, Any]) -> None:
        name = self.path.split("/")[4]
        with self.served.lock:
            self.served.asked["file_stream"] += 1
            run = self.served.run(name)
            for file, part in (sent.get("files") or {}).items():
                lines = part.get("content") or []
                if file == "wandb-history.jsonl":
                    run.history |= {part["offset"] + i: json.loads(line) for i, line in enumerate(lines)}
                elif file == "wandb-summary.json":
                    run.summary = json.loads(lines[-1])
                elif file == "wandb-events.jsonl":
                    run.n_events += len(lines)
            if sent.get("complete"):
                run.exitcode = sent.get("exitcode")
            run.preempting = run.preempting or bool(sent.get("preempting"))
        self._send({"exitcode": None, "limits": {}})

    def _healthy(self) -> bool:
        """Answers with the fault that is on, if any."""
        fault = self.served.fault
        if fault == "slow":
            time.sleep(0.5)
        elif fault == "hang":
            while self.served.fault == "hang" and not self.served.closed.wait(0.1):
                pass
        if fault in ("hang", "disconnect"):
            self.close_connection = True
            return False
        if fault == "500":
            self._send({"error": "the stand-in was told to fail"}, 500)
        return fault != "500"

    def _body(self) -> bytes:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

    def _send(self, value: dict[str, Any], status: int = 200) -> None:
        body = json.dumps(value).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            # Uploads to a store answer with the digest of what came.
            self.send_header("ETag", base64.b64encode(hashlib.md5(body).digest()).decode())
            self.end_headers()
            self.wfile.write(body)
        except OSError:  # the client has gone
            self.close_connection = True


def steps_of(run) -> dict[int, dict[str, float]]:
    """The rows of metrics.jsonl, those of a step as one"""
    found: dict[int, dict[str, float]] = {}
    for line in run.metrics_file.read_text().splitlines():
        row = json.loads(line)
        found.setdefault(row["step"], {}).update({k: v for k, v in row.items() if k != "seconds"})
    return found


def assert_same_rows(served, run) -> None:
    """The service has every step of the run once, with all its values."""
    ours = steps_of(run)
    assert served.steps == list(ours)
    for row in served.rows:
        expected = {k: v for k, v in ours[row["_step"]].items() if k != "step"}
        assert {k: row[k] for k in expected} == pytest.approx(expected)
        assert row["trainer/global_step"] == row["_step"]
