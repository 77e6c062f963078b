"""A Python client generated from the openapi.yaml that a live server serves, and what it gets: client_test.py freshet_api_server"""
import os
import pathlib
import subprocess
import sys
import tempfile

from api_server import ApiServer

# Everything else has to be generated: a path or a schema that is left out would be left out for users too.
EXPECTED_WARNINGS = [
    "Unsupported content type application/vnd.freshet.recall.v1",  # generators know JSON
    "Unsupported content_type application/yaml",
]


def generate(url, folder):
    environment = dict(os.environ, PATH=f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}")
    made = subprocess.run(
        [sys.executable, "-m", "openapi_python_client", "generate", "--url", url + "/openapi.yaml", "--output-path", str(folder)],
        env=environment, capture_output=True, text=True)
    said = made.stdout + made.stderr
    assert made.returncode == 0, said
    warnings = [line for line in said.splitlines() if line.lower().lstrip().startswith(("unable", "cannot", "could not", "unsupported", "attempted"))]
    unexpected = [line for line in warnings if not any(expected in line for expected in EXPECTED_WARNINGS)]
    assert not unexpected, said


def ask(url):
    import freshet_client
    from freshet_client import models as m
    from freshet_client.api.default import get_item, get_user, live, ready, recall, recall_batch, score

    client = freshet_client.Client(base_url=url)
    is_film = m.FilterCondition(key="category", match="film")
    old = m.FilterCondition(key="year", range_=m.FilterRange(lt=2000))
    answer = recall.sync(client=client, body=m.RecallRequest(
        user="user-1", k=5, exclude_seen=True, filter_=m.FilterGroup(must=[m.FilterGroup(should=[is_film]), old]),
        weights=m.Weights(popularity=0.1), with_attributes=True, explain=True))
    assert isinstance(answer, m.RecallAnswer), answer
    assert len(answer.results) == 5
    assert all(hit.attributes["category"] == "film" and hit.attributes["year"] < 2000 for hit in answer.results)
    assert answer.results[0].parts.popularity >= 0 and answer.explain.matching == 10
    assert answer.as_of_ms == 253402300799999

    answer = recall.sync(client=client, body=m.RecallRequest(
        item="item-1", k=3, rerank=m.RerankOptions(candidates=5), explain=True))
    assert len(answer.results) == 3 and answer.explain.reranked == 5
    assert recall.sync(client=client, body=m.RecallRequest(item="item-1", k=3, rerank=True)).results[0].score == 0

    override = m.UserOverride(features=m.Features.from_dict({"age": 33}), history=["item-1", m.HistoryEvent(item_id="item-2")])
    assert len(recall.sync(client=client, body=m.RecallRequest(user=override, k=3)).results) == 3
    problem = recall.sync(client=client, body=m.RecallRequest(item="nobody"))
    assert isinstance(problem, m.Problem) and problem.status == 404, problem

    batch = recall_batch.sync(client=client, body=m.BatchRequest(requests=[{"item": "item-1", "k": 1}, {"k": 0}]))
    assert [one.status for one in batch.responses] == [200, 400]
    assert batch.responses[1].problem.pointer == "/k"
    scores = score.sync(client=client, body=m.ScoreRequest(item="item-1", ids=["item-2", "nobody"]))
    assert [hit.id for hit in scores.results] == ["item-2"] and scores.unknown == ["nobody"]
    item = get_item.sync("item-2", client=client)
    assert item.live and len(item.vector) == 2 and item.attributes["tags"] == ["x", "y"]
    user = get_user.sync("user-1", client=client)
    assert user.seen == ["item-1"] and user.history[0].item_id == "item-1"
    assert ready.sync(client=client).ready and live.sync(client=client)["live"]


with tempfile.TemporaryDirectory() as folder, ApiServer(sys.argv[1]) as server:
    generate(server.url, pathlib.Path(folder) / "client")
    sys.path.insert(0, str(pathlib.Path(folder) / "client"))
    ask(server.url)
print("a generated client asks and understands")
