// freshet_bench answer: ours for tests/bench/peers, which asks libraries of other languages the same questions.
#pragma once

#include <string>

#include "freshet/core/status.h"

namespace freshet::bench {

// Opens an index file and a file of queries; then, for each line `K EF THREADS BATCH FILE` on standard input, answers
// all queries once (BATCH 1: one by one) and prints the wall-clock and processor seconds that it took. Unless FILE is
// `-`, it receives the labels, u32, K a query, the missing ones ~0.
Status RunAnswer(const std::string& index_path, const std::string& queries_path);

}  // namespace freshet::bench
