"""Uses an engine by docker's library for Python, and prints what it hears."""

from __future__ import annotations

import io
import tarfile
import time

import docker
from docker.errors import APIError, BuildError, ContainerError, ImageNotFound, NotFound


def refused(what: str, work: object) -> None:
    try:
        work()  # type: ignore[operator]
    except (APIError, BuildError, ContainerError) as error:
        print(what, type(error).__name__, getattr(error, "explanation", None) or error)
    else:
        print(what, "was not refused")


client = docker.from_env()
print(client.ping(), [image.tags for image in client.images.list()])
print(client.containers.run("busybox", "echo hi", remove=True))
print(client.containers.run("busybox", ["sh", "-c", "echo out; echo err >&2"], stdout=True, stderr=True, remove=True))
refused("exit", lambda: client.containers.run("busybox", "sh -c 'exit 7'", remove=True))
refused("image", lambda: client.images.get("nothing"))
refused("container", lambda: client.containers.get("nothing"))
refused("network", lambda: client.networks.get("nothing"))
refused("volume", lambda: client.volumes.get("nothing"))

box = client.containers.run(
    "busybox", "sh -c 'echo first; exec sleep 1000'", name="box", detach=True, labels={"a": "b"}
)
print(box.name, box.status, [one.name for one in client.containers.list(filters={"label": "a=b"})])
box.reload()
print(box.status, box.attrs["Config"]["Cmd"], box.labels)
result = box.exec_run("sh -c 'echo $WORD; exit 3'", environment={"WORD": "spoken"})
print(result.exit_code, result.output)
print(box.exec_run("sh -c 'echo out; echo err >&2'", demux=True))
print(b"".join(box.exec_run("sh -c 'echo one; echo two'", stream=True).output))
for _ in range(100):
    if box.logs():
        break
    time.sleep(0.1)
print(box.logs(), next(iter(box.logs(stream=True, follow=True))))
archive = io.BytesIO()
with tarfile.open(fileobj=archive, mode="w") as tar:
    info = tarfile.TarInfo("given")
    info.size = 5
    tar.addfile(info, io.BytesIO(b"given"))
print(box.put_archive("/tmp", archive.getvalue()))
pieces, stat = box.get_archive("/tmp/given")
with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as tar:
    print(tar.extractfile("given").read(), stat["name"], stat["size"])  # type: ignore[union-attr]
print(sorted(change["Path"] for change in box.diff()))
print(sorted(box.top()), "read" in box.stats(stream=False))
box.pause()
box.reload()
print(box.status)
box.unpause()
box.rename("other")
refused("name", lambda: client.containers.create("busybox", name="other"))
image = box.commit("committed", tag="1", changes="ENV A=b")
print(image.tags, image.attrs["Config"]["Env"])
box.kill()
print(box.wait()["StatusCode"])
box.remove()
refused("removed", box.start)

socket_box = client.containers.create("busybox", "cat", stdin_open=True, name="cat")
stream = socket_box.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
socket_box.start()
stream._sock.sendall(b"typed\n")
heard = b""
while not heard.endswith(b"typed\n"):
    heard += stream._sock.recv(100)
print(heard)
stream._sock.close()
socket_box.remove(force=True)

network = client.networks.create("net")
volume = client.volumes.create("vol")
member = client.containers.run(
    "busybox", "sleep 1000", network="net", volumes={"vol": {"bind": "/data", "mode": "rw"}}, name="member", detach=True
)
network.reload()
print([one.name for one in network.containers], volume.name)
refused("in use", volume.remove)
member.remove(force=True)
network.remove()
volume.remove()

built, log = client.images.build(fileobj=io.BytesIO(b"FROM busybox\nRUN echo made > /made\n"), tag="built:1", rm=True)
print(built.tags, [line["stream"].split(" : ")[0] for line in log if line.get("stream", "").startswith("Step")])
refused("build", lambda: client.images.build(fileobj=io.BytesIO(b"FROM busybox\nRUN exit 5\n"), rm=True))
saved = b"".join(built.save(named=True))
client.images.remove("built:1")
print([one.tags for one in client.images.load(saved)])
print(
    sorted(set(client.info()) & {"Containers", "Images", "Driver", "Name"}), sorted(set(client.df()) - {"BuilderSize"})
)
now = int(time.time())
actions = {event["Action"] for event in client.events(since=now - 60, until=now + 1, decode=True)}
print(actions >= {"create", "start", "die"})
assert issubclass(ImageNotFound, NotFound)
