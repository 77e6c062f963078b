"""The peers: each builds over float rows, and answers one query or all of them at an effort of its own kind."""

import faiss
import hnswlib
import kannolo
import numpy as np
import scann
import svs
import usearch.index

M = 16
EF_CONSTRUCTION = 200


def exact(base, queries, k, metric):
    flat = faiss.IndexFlatL2(base.shape[1]) if metric == "l2" else faiss.IndexFlatIP(base.shape[1])
    flat.add(base)
    return flat.search(queries, k)[1]


def graph_efs(k):
    factors = (1.6, 2.4, 4.0, 7.0, 12.0, 20.0) if k < 50 else (1.0, 1.2, 1.5, 2.0, 3.0, 4.0)
    return [int(k * factor) for factor in factors]


class Hnswlib:
    name = "hnswlib"
    efs = staticmethod(graph_efs)

    def build(self, base, metric):
        self.index = hnswlib.Index(space=metric, dim=base.shape[1])
        self.index.init_index(len(base), M=M, ef_construction=EF_CONSTRUCTION)
        self.index.add_items(base, num_threads=1)

    def prepare(self, k, ef, threads):
        self.index.set_ef(ef)

    def single(self, query, k):
        return self.index.knn_query(query, k, num_threads=1)[0][0]

    def batch(self, queries, k, threads):
        return self.index.knn_query(queries, k, num_threads=threads)[0]


class Faiss:
    efs = staticmethod(graph_efs)

    def build(self, base, metric):
        faiss.omp_set_num_threads(1)
        kind = faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT
        self.index = faiss.index_factory(base.shape[1], self.recipe(len(base)), kind)
        self.tune()
        self.index.train(base)
        self.index.add(base)

    def tune(self):
        self.index.hnsw.efConstruction = EF_CONSTRUCTION

    def prepare(self, k, ef, threads):
        faiss.omp_set_num_threads(threads)
        self.index.hnsw.efSearch = ef

    def single(self, query, k):
        return self.index.search(query[None], k)[1][0]

    def batch(self, queries, k, threads):
        return self.index.search(queries, k)[1]


class FaissHnswSq8(Faiss):
    name = "faiss HNSW-SQ8"

    def recipe(self, rows):
        return f"HNSW{M},SQ8"


class FaissFlat(Faiss):
    """Exact, beside our exact kind; not among the others."""

    name = "faiss flat"

    def recipe(self, rows):
        return "Flat"

    def tune(self):
        pass

    def prepare(self, k, ef, threads):
        faiss.omp_set_num_threads(threads)


class FaissIvfPq(Faiss):
    """Partitions with 4-bit codes, scored again by floats: the other family."""

    name = "faiss IVF-PQ fast scan"

    def recipe(self, rows):
        return f"IVF{1 << int(np.log2(4 * np.sqrt(rows)))},PQ64x4fs,RFlat"

    def tune(self):
        pass

    def efs(self, k):
        return [(nprobe, 4 if k >= 100 else 10) for nprobe in (4, 8, 16, 32, 64, 128)]

    def prepare(self, k, ef, threads):
        faiss.omp_set_num_threads(threads)
        self.index.k_factor = ef[1]
        faiss.extract_index_ivf(self.index).nprobe = ef[0]


class Usearch:
    efs = staticmethod(graph_efs)
    dtype = "f32"
    name = "usearch f32"

    def build(self, base, metric):
        self.index = usearch.index.Index(ndim=base.shape[1], metric="l2sq" if metric == "l2" else "ip", dtype=self.dtype,
                                         connectivity=M, expansion_add=EF_CONSTRUCTION)
        self.index.add(np.arange(len(base)), base, threads=1)

    def prepare(self, k, ef, threads):
        self.index.expansion_search = ef

    def single(self, query, k):
        return self.index.search(query, k).keys

    def batch(self, queries, k, threads):
        return self.index.search(queries, k, threads=threads).keys


class UsearchF16(Usearch):
    dtype = "f16"
    name = "usearch f16"


class Kannolo:
    """Its batch call uses every core (RAYON_NUM_THREADS is read once): `single` alone is measured."""

    name = "kannolo"
    has_batch = False
    efs = staticmethod(graph_efs)

    def build(self, base, metric):
        self.index = kannolo.DensePlainHNSW.build_from_array(
            base.reshape(-1), base.shape[1], M, EF_CONSTRUCTION, "euclidean" if metric == "l2" else "dotproduct")

    def prepare(self, k, ef, threads):
        self.ef = ef

    def single(self, query, k):
        return self.index.search(query, k, self.ef)[1][:k]


class SvsVamana:
    """float16, degree 32, alpha as its documentation says."""

    name = "SVS Vamana fp16"
    efs = staticmethod(graph_efs)

    def build(self, base, metric):
        parameters = svs.VamanaBuildParameters(alpha=1.2 if metric == "l2" else 0.95, graph_max_degree=2 * M,
                                               window_size=EF_CONSTRUCTION)
        self.index = svs.Vamana.build(parameters, base.astype(np.float16),
                                      svs.DistanceType.L2 if metric == "l2" else svs.DistanceType.MIP, num_threads=1)

    def prepare(self, k, ef, threads):
        self.index.search_window_size = ef
        if self.index.num_threads != threads:
            self.index.num_threads = threads

    def single(self, query, k):
        return self.index.search(query[None], k)[0][0]

    def batch(self, queries, k, threads):
        return self.index.search(queries, k)[0]


class Scann:
    """Partitions with 4-bit codes, scored again: the other family."""

    name = "ScaNN"

    def build(self, base, metric):
        leaves = int(2 * np.sqrt(len(base)))
        builder = scann.scann_ops_pybind.builder(base, 10, "squared_l2" if metric == "l2" else "dot_product")
        self.index = builder.set_n_training_threads(1).tree(leaves, leaves // 10, training_sample_size=100_000).score_ah(
            2, anisotropic_quantization_threshold=float("nan") if metric == "l2" else 0.2).reorder(1000).build()

    def efs(self, k):
        return [(leaves, max(3 * k, 100)) for leaves in (8, 16, 32, 64, 128, 256)]

    def prepare(self, k, ef, threads):
        self.effort = {"leaves_to_search": ef[0], "pre_reorder_num_neighbors": ef[1]}
        self.index.set_num_threads(threads)

    def single(self, query, k):
        return self.index.search(query, final_num_neighbors=k, **self.effort)[0]

    def batch(self, queries, k, threads):
        call = self.index.search_batched if threads == 1 else self.index.search_batched_parallel
        return call(queries, final_num_neighbors=k, **self.effort)[0]


ALL = (Hnswlib, FaissHnswSq8, Usearch, UsearchF16, Kannolo, SvsVamana, FaissIvfPq, Scann)
