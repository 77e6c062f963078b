"""Asking engine and sidecar over HTTP, as a recommender service would: one kept-alive connection, JSON."""

import http.client
import json
import math
import re
import urllib.parse

_BUCKET = re.compile(r'^(\w+)_bucket\{(.*?)le="([^"]+)"\} (\S+)')


class Client:
    """One connection, opened on demand and again after an error. Not thread-safe."""

    def __init__(self, address, timeout=5.0):
        host, port = address.rsplit(":", 1)
        self._connection = http.client.HTTPConnection(host, int(port), timeout=timeout)

    def request(self, method, path, body=None):
        """(status, body bytes). Raises OSError or http.client.HTTPException when there is no answer."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} if data else {}
        try:
            self._connection.request(method, path, data, headers)
            answer = self._connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            self._connection.close()
            raise

    def _json(self, method, path, body=None):
        status, text = self.request(method, path, body)
        if status != 200:
            raise RuntimeError(f"{method} {path}: {status} {text.decode(errors='replace')[:300]}")
        return json.loads(text)

    def status(self):
        return self._json("GET", "/v1/status")

    def ready(self):
        """(ready, what it says)."""
        status, text = self.request("GET", "/readyz")
        return status == 200, text.decode(errors="replace")

    def recall(self, **query):
        return self._json("POST", "/v1/recall", query)

    def item_is_live(self, item_id):
        status, text = self.request("GET", "/v1/items/" + urllib.parse.quote(item_id, safe=""))
        if status not in (200, 404):
            raise RuntimeError(f"GET item {item_id}: {status} {text.decode(errors='replace')[:300]}")
        return status == 200

    def histograms(self, *names):
        """The named histograms (summed over their labels) as they stand now."""
        status, text = self.request("GET", "/metrics")
        if status != 200:
            raise RuntimeError(f"GET /metrics: {status}")
        buckets = {name: {} for name in names}
        for line in text.decode().splitlines():
            match = _BUCKET.match(line)
            if match and match.group(1) in buckets:
                of = buckets[match.group(1)]
                bound = math.inf if match.group(3) == "+Inf" else float(match.group(3))
                of[bound] = of.get(bound, 0.0) + float(match.group(4))
        return [Histogram(buckets[name]) for name in names]


class Histogram:
    """Cumulative buckets of a Prometheus histogram; the difference of two is what happened in between."""

    def __init__(self, buckets):
        self.buckets = buckets

    def since(self, before):
        return Histogram({bound: count - before.buckets.get(bound, 0.0) for bound, count in self.buckets.items()})

    def count(self):
        return int(self.buckets.get(math.inf, 0))

    def bound(self, q):
        """The upper bound of the bucket that the quantile is in; None when nothing was observed."""
        wanted = q * self.count()
        reached = [bound for bound in sorted(self.buckets) if self.buckets[bound] >= wanted]
        return reached[0] if wanted and reached else None

    def quantile(self, q):
        """By linear interpolation within the bucket, as Prometheus does; None when nothing was observed."""
        if self.count() == 0:
            return None
        wanted = q * self.count()
        low = below = 0.0
        for bound in sorted(self.buckets):
            if self.buckets[bound] >= wanted:
                if math.isinf(bound):
                    return low
                inside = self.buckets[bound] - below
                return low + (bound - low) * ((wanted - below) / inside if inside else 0.0)
            low, below = bound, self.buckets[bound]
        return low
