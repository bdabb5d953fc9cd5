"""A model and language adapters from a hub: a small server here, which the libraries find by HF_ENDPOINT."""

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from safetensors.torch import load_file

from fishlens.training import train
from fishlens.training.checkpoint import list_checkpoints

COMMIT = "0123456789abcdef" * 2 + "01234567"


class Hub(BaseHTTPRequestHandler):
    """What the hub's interface says of repositories that are folders here: `server.repositories`, {id: folder}."""

    def do_HEAD(self):
        self.answer(with_body=False)

    def do_GET(self):
        self.answer(with_body=True)

    def answer(self, with_body):
        words = self.path.partition("?")[0].strip("/").split("/")
        listed = words[:2] == ["api", "models"]
        name = "/".join(words[2:4] if listed else words[:2])
        self.server.asked.append((self.command, self.path))
        folder = self.server.repositories.get(name)
        if folder is None:
            self.reply(404, b"", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}, with_body)
        elif listed and words[4:5] == ["revision"]:
            there = [{"rfilename": str(p.relative_to(folder))} for p in sorted(folder.rglob("*")) if p.is_file()]
            about = {"id": name, "modelId": name, "sha": COMMIT, "siblings": there, "tags": [], "private": False}
            self.reply(200, json.dumps(about).encode(), {"Content-Type": "application/json"}, with_body)
        elif not listed and words[2:3] == ["resolve"] and (folder / "/".join(words[4:])).is_file():
            content = (folder / "/".join(words[4:])).read_bytes()
            self.reply(200, content, {"ETag": f'"{hash(content) & 0xFFFFFFFF:x}"'}, with_body)
        else:
            self.reply(404, b"", {"X-Error-Code": "EntryNotFound"}, with_body)

    def reply(self, status, content, headers, with_body):
        self.send_response(status)
        for key, value in {**headers, "X-Repo-Commit": COMMIT, "Content-Length": str(len(content))}.items():
            self.send_header(key, value)
        self.end_headers()
        if with_body:
            self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(encoder, language_adapters):
    """The address of a hub that has `us/encoder` and `us/en`, `us/de`, `us/es`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.repositories = {"us/encoder": encoder} | {f"us/{p.name}": p for p in language_adapters.iterdir()}
    server.asked = []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


PROGRAM = """
import json, sys
from fishlens.errors import InputError
from fishlens.training import load_recipe, train

recipe, place = json.loads(sys.argv[1]), sys.argv[2]
said = []
for wrong in ({"model": "us/nothing"}, {"language_adapters": "us/{language}-nothing"}):
    try:
        train(load_recipe({**recipe, **wrong}), place + "-wrong", progress=False)
    except InputError as error:
        said.append(str(error))
train(load_recipe(recipe), place, progress=False)
print(json.dumps(said))
"""


def test_a_run_from_the_hub_is_the_run_from_the_folders_and_what_is_not_there_is_one_sentence(
    hub, recipe, tmp_path
):
    short = {**recipe, "train": {**recipe["train"], "steps": 2}, "evaluate": {"every": 2}}
    train(short, tmp_path / "folders", progress=False)
    from_hub = {**short, "model": "us/encoder", "language_adapters": "us/{language}"}
    environment = {
        **os.environ, "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}", "HF_HOME": str(tmp_path / "cache"),
        "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_XET": "1", "no_proxy": "127.0.0.1", "HF_HUB_OFFLINE": "0",
    }  # fmt: skip
    command = [sys.executable, "-c", PROGRAM, json.dumps(from_hub), str(tmp_path / "hub")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    no_model, no_adapter = json.loads(done.stdout.splitlines()[-1])
    assert "us/nothing" in no_model and "\n" not in no_model and "Repo id" not in no_model
    assert "us/en-nothing" in no_adapter and "neither a folder here nor found on the hub" in no_adapter
    assert not (tmp_path / "hub-wrong").exists()
    assert weights(tmp_path / "folders") == weights(tmp_path / "hub")
    assert any(path.startswith("/us/de/resolve/") for _, path in hub.asked)


def weights(run):
    last = list_checkpoints(run / "checkpoints")[2]
    files = {path.name: load_file(path) for path in last.glob("*.safetensors")}
    assert files
    return {(name, key): value.tolist() for name, tensors in files.items() for key, value in tensors.items()}
