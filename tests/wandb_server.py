"""A small W&B server on this machine: takes runs like the real one, or misbehaves."""

import gzip
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KEY = "0123456789abcdef" * 3
"""Long enough that W&B takes it for a key."""


class Server(ThreadingHTTPServer):
    """Holds what was sent: for each run its config and its files' lines, and the uploaded files' contents.

    :ivar mood: "good", "hangs" (takes connections and never answers) or "refuses" (401: a wrong key).
    :ivar begun: set when a run is there.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.mood = "good"
        self.released = threading.Event()
        self.begun = threading.Event()
        self.runs: dict[str, dict] = {}
        self.uploads: dict[str, bytes] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def history(self, run: str) -> list[dict]:
        return [json.loads(line) for line in self.runs[run]["files"].get("wandb-history.jsonl", [])]

    def handle_error(self, request, client_address) -> None:
        """A client that goes away is no error."""


@contextmanager
def serving():
    server = Server()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *words) -> None:
        """Not on the test's output."""

    def do_GET(self) -> None:
        self._take()

    do_PUT = do_POST = do_GET  # noqa: N815 - names that the base class calls

    def _take(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        if self.server.mood == "hangs":
            self.server.released.wait()
            self.close_connection = True
        elif self.server.mood == "refuses":
            self._answer(401, {"error": "invalid key"})
        elif self.path.startswith("/graphql"):
            self._answer(200, {"data": self._graphql(**json.loads(body))})
        elif self.path.endswith("/file_stream"):
            self._stream(self.path.split("/")[-2], json.loads(body))
            self._answer(200, {})
        else:
            self.server.uploads[self.path.removeprefix("/upload/")] = body
            self._answer(200, {})

    def _answer(self, status: int, content: dict) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _run(self, name: str) -> dict:
        return self.server.runs.setdefault(name, {"config": {}, "files": {}})

    def _stream(self, name: str, sent: dict) -> None:
        run, files = self._run(name), self._run(name)["files"]
        for file, part in (sent.get("files") or {}).items():
            lines, start = files.setdefault(file, []), part["offset"]
            lines[start : start + len(part["content"])] = part["content"]
        if sent.get("complete") is not None:
            run["exit_code"] = sent["exitcode"]

    def _graphql(self, query: str, variables: dict | None = None, **other) -> dict:
        variables, entity = variables or {}, {"id": "e", "name": "me"}
        project = {"id": "p", "name": variables.get("project") or "p", "entity": entity}
        if "upsertBucket" in query:
            run = self._run(variables["name"])
            run["config"] = json.loads(variables.get("config") or "null") or run["config"]
            run["commit"] = variables.get("commit") or run.get("commit")
            self.server.begun.set()
            bucket = {"id": "b", "name": variables["name"], "project": project}
            return {"upsertBucket": {"bucket": bucket, "inserted": True}}
        if "RunResumeStatus" in query:
            known = variables["name"] in self.server.runs
            return {"model": project | {"bucket": self._resumed(variables["name"]) if known else None}}
        if "createRunFiles" in query:
            files = [{"name": n, "uploadUrl": f"{self.server.url}/upload/{n}"} for n in variables["files"]]
            return {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": files}}
        if "viewer" in query:
            return {"viewer": {"id": "v", "entity": "me", "username": "me", "flags": "{}"}}
        return {}

    def _resumed(self, name: str) -> dict:
        run = self._run(name)
        history, events = (run["files"].get(f"wandb-{kind}.jsonl", []) for kind in ("history", "events"))
        return {
            "id": "b",
            "name": name,
            "summaryMetrics": "{}",
            "historyLineCount": len(history),
            "eventsLineCount": len(events),
            "logLineCount": 0,
            "historyTail": json.dumps(history[-1:]),
            "eventsTail": json.dumps(events[-1:]),
            "config": json.dumps(run["config"]),
            "tags": [],
            "wandbConfig": json.dumps({"t": 1}),
        }
