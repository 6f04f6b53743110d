"""What a user of the load test does; locust runs this file (tests/load.py)."""

import json
import random
from pathlib import Path

from locust import FastHttpUser, constant, task

QUESTIONS = [
    one["question"]
    for one in json.loads((Path(__file__).parents[1] / "deploy/corpus_questions.json").read_text(encoding="utf-8"))
]


class Searcher(FastHttpUser):
    """Searches as fast as answers come; a refusal with 429 is honest, and counted by itself."""

    wait_time = constant(0)

    @task
    def search(self) -> None:
        body = {"query": f"{random.choice(QUESTIONS)} {random.randrange(1000)}", "limit": 10}
        with self.client.post("/api/v1/search", json=body, name="search", catch_response=True) as response:
            if response.status_code == 429:
                response.request_meta["name"] = "refused with 429"
                response.success()
