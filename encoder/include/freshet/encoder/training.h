// Training two towers from event files.
//
// Place in the flow: `freshet train`; off the stream. InfoNCE with in-batch negatives and logQ correction (Yi et al.,
// "Sampling-bias-corrected neural modeling for large corpus item recommendations", RecSys 2019). The result is a
// package like any other. Deterministic by seed on one thread, also across a kill and a resumption. One Train() at a
// time in a process: it seeds and draws from LibTorch's global generator, and two would mix their seeds. Errors:
// kConfig, kInvalidArgument (the data cannot be trained on: says what to do), kFailedPrecondition and kCorruption (a
// checkpoint that does not belong here, or is damaged), kIoError.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "freshet/core/status.h"
#include "freshet/encoder/device.h"
#include "freshet/encoder/feature_request.h"
#include "freshet/encoder/split.h"
#include "freshet/ingest/event_file.h"

namespace freshet {

struct TrainOptions {
  std::string items_file;
  std::string interactions_file;
  std::string users_file;    // may be empty
  EventFileSchemas schemas;  // of these files
  std::string out_directory;
  std::string name = "two-tower";
  std::string version = "1";
  std::int64_t until_ms = 0;  // only events before this time are seen at all; 0: all
  SplitOptions split;         // validation chooses the epoch; a test part is not looked at
  FeatureRequests features;   // of single features; what is not named is inferred
  int dim = 128;
  int embedding_dim = 64;
  int hidden = 128;  // units of each block
  int layers =
      1;  // blocks of linear, batch norm (where `batch_norm`), ReLU and dropout, before what is linear to `dim`
  int epochs = 12;
  int batch_size = 512;
  int history = 50;
  double learning_rate = 0.003;
  double warmup = 0;                // share of the training over which the rate climbs from 0
  std::string schedule = "linear";  // after it: linear (to a tenth), cosine (to 0) or constant
  double max_gradient_norm = 0;     // of all parameters together; 0: gradients are not clipped
  double temperature = 0.07;
  bool learn_temperature = false;  // the temperature is where training begins
  std::string pooling = "mean";    // of the history: mean, attention (content and recency), gru, self-attention
  int blocks = 2;                  // of self-attention
  int heads = 2;                   // of each block; divides embedding_dim
  bool share_items = false;        // the history reads the item tower's own id embeddings
  std::string loss = "in-batch";   // in-batch negatives with logQ correction, or full: softmax over the catalogue
  double log_q = 1;                // in-batch: weight of the correction; 0: popular items are punished as negatives
  int uniform_negatives = 0;       // in-batch: as many more a batch, drawn evenly from the catalogue
  int hard_negatives = 0;          // in-batch: as many more, of what the towers of the last epoch would recommend
  bool batch_norm = false;         // in each block
  double dropout = 0;              // of the inputs of the layers
  int horizon = 0;               // a pair's history ends up to so many interactions before it, another number each time
  double history_dropout = 0.4;  // share of a history that is left out, another one each epoch
  double stranger_share = 0;     // share of training rows whose user has no history, as a new user
  double user_weight = 0;        // a pair weighs (the user's pairs)^-x: 0 every pair alike, 1 every user alike
  // A pair weighs so much by its event; what is not named weighs 1. With 0 an interaction is no pair, nor asked for in
  // validation: it stands in histories only.
  std::map<std::string, double> event_weights;
  double value_weight = 0;          // ... and (its interaction's value)^x: 0 the value does not matter
  double half_life_days = 0;        // a pair that is so much older than the newest weighs half; 0: age does not matter
  bool mask_seen = false;           // in validation: what was seen is neither recommended nor asked for
  bool validate_strangers = false;  // in validation: users without history too
  int validation_k = 100;           // recall at this K chooses the epoch
  int patience = 0;                 // epochs without a better one before training stops; 0: never
  bool refit = false;               // then once more on training and validation part, for as many epochs as were best
  double id_dropout = 0.2;  // share of training rows whose item id is hidden, so that content learns to carry new items
  double user_id_dropout = 0.5;  // likewise of user ids, where `features` has the user tower read them
  std::uint64_t seed = 1;
  int threads = 1;
  // Where it trains: cpu, auto (the first CUDA device if there is one), cuda or cuda:N; the package is the same either
  // way. Bits by seed are promised on the CPU only.
  Device device{Device::Kind::kCpu};
  std::string precision = "fp32";  // or bf16: matrix products of the towers in bfloat16
  // Beside out_directory lies `<out_directory>.checkpoint` until the package is written; it is renewed after each epoch
  // and where this time has passed. `resume` continues from it, or begins where there is none.
  double checkpoint_seconds = 60;
  bool resume = false;
  // `<out_directory>.report.html`: curves, baselines on the validation part, neighbours, a map of the items.
  bool report = true;
  Status Validate() const;
  [[nodiscard]] bool ReadsUserId() const;
  // Does the pooling read a history in its order? Such towers are trained on every place of a sequence at once.
  [[nodiscard]] bool ReadsSequence() const { return pooling == "gru" || pooling == "self-attention"; }
};

struct TrainProgress {
  int epoch = 0;
  int epochs = 0;
  bool refit = false;
  double fraction = 0;  // of this epoch
  double loss = 0;      // running mean
  double examples_per_second = 0;
  bool ended = false;      // the epoch is over
  double recall = -1;      // recommendation recall at validation_k on validation, of the newest epoch that is; -1: none
  double popularity = -1;  // the same for the popularity baseline
  double seconds = 0;      // since the beginning, without the time between a kill and a resumption
  double seconds_left = 0;  // if no patience ends it
  std::string reporting;    // what is judged for the page, once the package is written: `fraction` is of that page
};

struct EpochRecord {
  int epoch = 0;
  double loss = 0;
  double recall = 0;
  double seconds = 0;  // at its end
};

struct TrainReport {
  std::string space_id;
  std::int64_t items = 0;
  std::int64_t users = 0;
  std::int64_t train_pairs = 0;
  std::int64_t validation_users = 0;
  double final_loss = 0;
  double recall = 0;  // at validation_k, of the epoch that was kept (the best on validation)
  double popularity_recall = 0;
  int best_epoch = 0;
  std::int64_t refit_pairs = 0;     // what the package was trained on where it was refitted; 0: it was not
  bool resumed = false;             // from a checkpoint
  std::vector<EpochRecord> epochs;  // all of them, those before a resumption too
  double seconds = 0;
  std::string report_file;  // empty: none was written
  std::string log_file;
};

// For a process that trains, and has jemalloc: its environment's MALLOC_CONF, read as it begins. Large matrices of one
// step are there for the next, in huge pages, and go back to the system only after a minute.
inline constexpr const char* kTrainingMallocConf =
    "thp:always,oversize_threshold:0,dirty_decay_ms:60000,muzzy_decay_ms:60000";

// For each row of `queries` the numbers of at most `k` rows of `items` whose inner products with it are large, best
// first; rows of `dim` floats, of unit length. An index: this layer knows none.
using FindNearest = std::function<Result<std::vector<std::vector<std::int32_t>>>(
    std::span<const float> items, std::span<const float> queries, int dim, int k)>;

// `find_nearest` mines hard negatives, where options ask for them. `<out_directory>.log.jsonl` says how it goes, a JSON
// object a line. A report that cannot be made is warned about; the package is there by then.
[[nodiscard]] Result<TrainReport> Train(const TrainOptions& options,
                                        const std::function<void(const TrainProgress&)>& progress,
                                        const FindNearest& find_nearest = nullptr);

}  // namespace freshet
