// The streaming index to a file and back.
#include <algorithm>

#include "hnsw_index.h"
#include "index_file.h"

namespace freshet {
namespace {

constexpr std::uint32_t kAhead = 16;  // rows whose label's entry is fetched while others are read

bool Bit(const std::vector<std::uint64_t>& bits, std::size_t i) { return (bits[i / 64] >> (i % 64) & 1) != 0; }

void Put32(std::byte* to, std::uint32_t value) { std::memcpy(to, &value, sizeof(value)); }

// Slots are numbered anew, without the free ones and in graph order. While the cut is there, no slot that it holds is
// freed, so that its rows stay as they are; while the graph is written, nothing is unlinked, and as a rule nothing
// linked. What was linked since the cut is left out.
class HnswCut final : public IndexCut {
 public:
  // REQUIRES: pinned.
  HnswCut(const HnswOptions& options, HnswIndex* index, std::shared_ptr<Segment> segment)
      : options_(options),
        index_(index),
        segment_(std::move(segment)),
        used_(segment_->used()),
        dead_(segment_->DeadBits(used_)),
        nodes_(segment_->NodeBits(used_)),
        uppers_(segment_->graph().Uppers(&entry_)) {}
  ~HnswCut() override { index_->Unpin(); }

  Status Write(const std::string& path, const std::function<Status(std::uint64_t)>& written) const override {
    return Guarded("to write it to a file", [&] { return WriteAll(path, written); });
  }

 private:
  // Slots by new number, and the other way round.
  struct Numbers {
    std::vector<std::uint32_t> slots;
    std::vector<std::uint32_t> of;  // kNoSlot: left out
  };

  // Nodes in an order that a walk likes: what a list leads to lies together, and beside what those lead to, so that
  // rows share cache lines and pages with the next ones to be read. Depth first, because breadth first goes everywhere
  // at once. The graph may change meanwhile; the order need not be the best. Then the rows that are no nodes.
  [[nodiscard]] Numbers GraphOrder() const {
    Numbers numbers;
    numbers.of.resize(used_, kNoSlot);
    const auto give = [&](std::uint32_t slot) {
      numbers.of[slot] = static_cast<std::uint32_t>(numbers.slots.size());
      numbers.slots.push_back(slot);
    };
    std::vector<std::uint32_t> stack;
    for (std::uint32_t root = 0; root < used_; ++root) {
      if (numbers.of[root] != kNoSlot || !Bit(nodes_, root)) continue;
      give(root);
      stack.push_back(root);
      while (!stack.empty()) {
        const std::uint32_t* list = segment_->graph().Links(stack.back());
        stack.pop_back();
        const std::size_t count = std::min<std::size_t>(LoadLink(list), 2 * options_.m);
        for (std::size_t i = 1; i <= count; ++i) {
          const std::uint32_t other = LoadLink(list + i);
          if (other >= used_ || numbers.of[other] != kNoSlot || !Bit(nodes_, other)) continue;
          give(other);
          stack.push_back(other);
        }
      }
    }
    for (std::uint32_t slot = 0; slot < used_; ++slot) {
      if (!Bit(nodes_, slot) && !Bit(dead_, slot)) give(slot);
    }
    return numbers;
  }

  Status WriteAll(const std::string& path, const std::function<Status(std::uint64_t)>& written) const {
    const Numbers numbers = GraphOrder();
    IndexFileHeader header;
    for (const std::uint32_t slot : numbers.slots) header.live += Bit(dead_, slot) ? 0 : 1;
    header.dim = static_cast<std::uint32_t>(options_.dim);
    header.metric = static_cast<std::uint32_t>(options_.metric);
    header.rerank = static_cast<std::uint32_t>(options_.rerank);
    header.m = static_cast<std::uint32_t>(options_.m);
    header.row_bytes = static_cast<std::uint32_t>(segment_->codes().row_bytes());
    header.rerank_row_bytes = static_cast<std::uint32_t>(segment_->reranker().row_bytes());
    header.attribute_words = static_cast<std::uint32_t>(options_.attribute_words);
    header.rows = numbers.slots.size();
    IndexFileWriter file(path);
    FRESHET_TRY(file.Open());
    std::vector<bool> placed(numbers.slots.size());
    std::uint64_t graph_bytes = 0;
    {
      // At full speed: adds gather meanwhile. Those that are linked all the same, because there are too many, change
      // lists that are written later, or were before: what was linked since is left out of each list either way.
      const HnswIndex::LinkingPaused paused(index_);
      FRESHET_TRY(paused.status());
      FRESHET_TRY(WriteLinks(numbers, &file));
      FRESHET_TRY(WriteChains(numbers, &placed, &file));
      FRESHET_TRY(WriteUppers(numbers, &file, &header));
      graph_bytes = file.bytes();
    }
    if (written) FRESHET_TRY(written(graph_bytes));
    file.Tell(written);
    FRESHET_TRY(WriteRows(numbers, header, placed, &file));
    return file.Finish(header);
  }

  // A list with those of its links that are kept, by their new ids, in order; the rest is zero.
  template <typename Kept>
  static void PutList(const std::uint32_t* list, std::size_t most, const std::vector<std::uint32_t>& ids,
                      const Kept& kept, std::byte* to) {
    std::memset(to, 0, (most + 1) * sizeof(std::uint32_t));
    std::uint32_t count = 0;
    const std::size_t had = std::min<std::size_t>(LoadLink(list), most);
    for (std::size_t i = 1; i <= had; ++i) {
      const std::uint32_t other = LoadLink(list + i);
      if (other < ids.size() && ids[other] != kNoSlot && kept(other)) Put32(to + 4 * ++count, ids[other]);
    }
    Put32(to, count);
  }

  Status WriteLinks(const Numbers& numbers, IndexFileWriter* file) const {
    const std::size_t most = 2 * options_.m;
    return file->Section(IndexSection::kLinks, numbers.slots.size(), (most + 1) * 4,
                         [&](std::uint64_t i, std::byte* to) {
                           const std::uint32_t slot = numbers.slots[i];
                           if (!Bit(nodes_, slot)) {
                             std::memset(to, 0, (most + 1) * 4);
                             return;
                           }
                           const auto is_node = [&](std::uint32_t other) { return Bit(nodes_, other); };
                           PutList(segment_->graph().Links(slot), most, numbers.of, is_node, to);
                         });
  }

  // `placed`: the nodes, and what is in the chain of one.
  Status WriteChains(const Numbers& numbers, std::vector<bool>* placed, IndexFileWriter* file) const {
    std::vector<std::uint32_t> next_same(numbers.slots.size());
    for (std::size_t i = 0; i < numbers.slots.size(); ++i) {
      if (!Bit(nodes_, numbers.slots[i])) continue;
      (*placed)[i] = true;
      std::size_t last = i;
      for (std::uint32_t at = segment_->NextSame(numbers.slots[i]); at != kNoSlot; at = segment_->NextSame(at)) {
        if (at >= used_ || numbers.of[at] == kNoSlot) continue;
        next_same[last] = numbers.of[at] + 1;
        last = numbers.of[at];
        (*placed)[last] = true;
      }
    }
    return file->Section(IndexSection::kNextSame, next_same.size(), 4,
                         [&](std::uint64_t i, std::byte* to) { Put32(to, next_same[i]); });
  }

  Status WriteUppers(const Numbers& numbers, IndexFileWriter* file, IndexFileHeader* header) const {
    const std::size_t m = options_.m;
    std::vector<std::uint32_t> ids(uppers_.size(), kNoSlot);  // by upper id: the new one
    std::vector<std::uint32_t> old;                           // by new upper id
    std::vector<Graph::Upper> kept;
    for (std::uint32_t upper = 0; upper < uppers_.size(); ++upper) {
      const std::uint32_t slot = uppers_[upper].slot;
      if (slot >= used_ || !Bit(nodes_, slot)) continue;
      ids[upper] = static_cast<std::uint32_t>(kept.size());
      old.push_back(upper);
      kept.push_back(uppers_[upper]);
    }
    // A graph whose only nodes above came after the cut: any node is an entry.
    for (std::uint32_t slot = 0; slot < used_ && kept.empty(); ++slot) {
      if (Bit(nodes_, slot)) kept.push_back({slot, 1});
    }
    header->entry_upper = kNoSlot;
    std::vector<std::pair<std::uint32_t, std::uint32_t>> lists;  // new upper id, level
    for (std::uint32_t id = 0; id < kept.size(); ++id) {
      if (header->entry_upper == kNoSlot || kept[id].level > header->entry_level) {
        header->entry_upper = id;
        header->entry_level = kept[id].level;
      }
      for (std::uint32_t level = 1; level <= kept[id].level; ++level) lists.emplace_back(id, level);
    }
    if (entry_.upper < ids.size() && ids[entry_.upper] != kNoSlot && entry_.level == header->entry_level) {
      header->entry_upper = ids[entry_.upper];
    }
    header->uppers = kept.size();
    header->upper_lists = lists.size();
    FRESHET_TRY(file->Section(IndexSection::kUppers, kept.size(), 8, [&](std::uint64_t i, std::byte* to) {
      Put32(to, numbers.of[kept[i].slot]);
      Put32(to + 4, kept[i].level);
    }));
    return file->Section(IndexSection::kUpperLinks, lists.size(), (m + 1) * 4, [&](std::uint64_t i, std::byte* to) {
      const auto [id, level] = lists[i];
      if (old.empty()) {
        std::memset(to, 0, (m + 1) * 4);
        return;
      }
      const auto is_as_high = [&, least = level](std::uint32_t other) { return uppers_[other].level >= least; };
      PutList(segment_->graph().UpperLinks(old[id], level), m, ids, is_as_high, to);
    });
  }

  Status WriteRows(const Numbers& numbers, const IndexFileHeader& header, const std::vector<bool>& placed,
                   IndexFileWriter* file) const {
    const std::vector<std::uint32_t>& slots = numbers.slots;
    FRESHET_TRY(file->Section(
        IndexSection::kCodes, slots.size(), header.row_bytes,
        [&](std::uint64_t i, std::byte* to) { std::memcpy(to, segment_->CodesOf(slots[i]), header.row_bytes); }));
    FRESHET_TRY(
        file->Section(IndexSection::kHeads, slots.size(), sizeof(CodeHead), [&](std::uint64_t i, std::byte* to) {
          const CodeHead head = segment_->HeadOf(slots[i]);
          std::memcpy(to, &head, sizeof(head));
        }));
    FRESHET_TRY(file->Section(IndexSection::kRerank, slots.size(), header.rerank_row_bytes,
                              [&](std::uint64_t i, std::byte* to) {
                                std::memcpy(to, segment_->RerankRow(slots[i]), header.rerank_row_bytes);
                              }));
    FRESHET_TRY(file->Section(IndexSection::kLabels, slots.size(), sizeof(Label), [&](std::uint64_t i, std::byte* to) {
      const Label label = segment_->label(slots[i]);
      std::memcpy(to, &label, sizeof(label));
    }));
    for (const auto& [id, bits] : {std::pair(IndexSection::kDead, &dead_), std::pair(IndexSection::kNodes, &nodes_)}) {
      std::vector<std::uint64_t> words((slots.size() + 63) / 64);
      for (std::size_t i = 0; i < slots.size(); ++i) {
        if (Bit(*bits, slots[i])) words[i / 64] |= std::uint64_t{1} << (i % 64);
      }
      FRESHET_TRY(
          file->Section(id, words.size(), 8, [&](std::uint64_t i, std::byte* to) { std::memcpy(to, &words[i], 8); }));
    }
    std::vector<std::uint32_t> fresh;
    for (std::uint32_t i = 0; i < slots.size(); ++i) {
      if (!placed[i]) fresh.push_back(i);
    }
    FRESHET_TRY(file->Section(IndexSection::kFresh, fresh.size(), 4,
                              [&](std::uint64_t i, std::byte* to) { Put32(to, fresh[i]); }));
    if (header.attribute_words == 0) return Status::Ok();
    return file->Section(IndexSection::kAttributes, slots.size(), header.attribute_words * sizeof(std::uint64_t),
                         [&](std::uint64_t i, std::byte* to) {
                           const std::span<const std::byte> row = std::as_bytes(segment_->AttributesOf(slots[i]));
                           std::copy(row.begin(), row.end(), to);
                         });
  }

  const HnswOptions options_;
  HnswIndex* const index_;
  const std::shared_ptr<Segment> segment_;
  const std::size_t used_;
  const std::vector<std::uint64_t> dead_;
  const std::vector<std::uint64_t> nodes_;
  GraphEntry entry_;
  const std::vector<Graph::Upper> uppers_;
};

}  // namespace

Result<std::unique_ptr<IndexCut>> HnswIndex::Cut() {
  const std::lock_guard lock(writer_mu_);
  // Under the lock, so that it is one moment. A cut that is made unpins when it goes.
  ++pins_;
  Result<std::unique_ptr<IndexCut>> cut = Guarded("for a cut of it", [&]() -> Result<std::unique_ptr<IndexCut>> {
    return std::unique_ptr<IndexCut>(std::make_unique<HnswCut>(options_, this, segment_));
  });
  if (!cut.ok()) --pins_;
  return cut;
}

void HnswIndex::Unpin() {
  const std::lock_guard lock(writer_mu_);
  --pins_;
  work_.notify_one();
}

HnswIndex::LinkingPaused::LinkingPaused(HnswIndex* index) : index_(index) {
  std::unique_lock lock(index->writer_mu_);
  ++index->paused_;
  if (index->progress_.wait_for(lock, index->longest_wait_, [&] { return !index->changing_; })) return;
  ++index->told_.wait_timeouts;
  status_ = DeadlineExceeded(StrCat("the graph did not come to rest in ", index->longest_wait_.count(),
                                    " ms: is there a search that does not end?"));
}

HnswIndex::LinkingPaused::~LinkingPaused() {
  const std::lock_guard lock(index_->writer_mu_);
  --index_->paused_;
  index_->work_.notify_one();
}

Status HnswIndex::Load(const IndexFile& file) {
  const IndexFileHeader& header = file.header();
  if (header.dim != static_cast<std::uint32_t>(options_.dim) ||
      header.metric != static_cast<std::uint32_t>(options_.metric) ||
      header.rerank != static_cast<std::uint32_t>(options_.rerank) || header.m != options_.m ||
      header.attribute_words != options_.attribute_words) {
    return FailedPrecondition(StrCat(file.path(), ": of another dimension, metric, re-rank kind, m or attributes (",
                                     header.dim, ", ", MetricName(static_cast<Metric>(header.metric)), ", ",
                                     header.rerank, ", ", header.m, ", ", header.attribute_words, ")"));
  }
  if (header.rows > options_.capacity) return ResourceExhausted(file.path() + ": more rows than index.capacity");
  const auto codes = file.Items<std::byte>(IndexSection::kCodes);
  const auto heads = file.Items<CodeHead>(IndexSection::kHeads);
  const auto rerank = file.Items<std::byte>(IndexSection::kRerank);
  const auto labels = file.Items<Label>(IndexSection::kLabels);
  const auto dead = file.Items<std::uint64_t>(IndexSection::kDead);
  const auto attributes = file.Items<std::uint64_t>(IndexSection::kAttributes);
  const auto nodes = file.Items<std::uint64_t>(IndexSection::kNodes);
  const auto next_same = file.Items<std::uint32_t>(IndexSection::kNextSame);
  const auto fresh = file.Items<std::uint32_t>(IndexSection::kFresh);
  const auto uppers = file.Items<std::uint32_t>(IndexSection::kUppers);
  const auto upper_links = file.Items<std::uint32_t>(IndexSection::kUpperLinks);
  {
    const std::lock_guard lock(writer_mu_);
    Segment& segment = *segment_;
    segment.Reserve(header.rows);
    for (std::uint32_t slot = 0; slot < header.rows; ++slot) {
      if (slot + kAhead < header.rows) segment.PrefetchLabel(labels[slot + kAhead]);
      const bool is_dead = (dead[slot / 64] >> (slot % 64) & 1) != 0;
      const bool is_node = (nodes[slot / 64] >> (slot % 64) & 1) != 0;
      if (!is_dead && segment.SlotOf(labels[slot])) return Corruption(file.path() + ": a label twice");
      segment.PutRow(slot, labels[slot], codes.data() + std::size_t{slot} * header.row_bytes, heads[slot],
                     rerank.data() + std::size_t{slot} * header.rerank_row_bytes,
                     attributes.subspan(std::size_t{slot} * header.attribute_words, header.attribute_words), is_dead);
      if (is_node) segment.graph().PutLinks(slot, file.Links(slot));
      segment.SetNext(slot, next_same[slot] - 1);
    }
    for (std::uint32_t upper = 0; upper < header.uppers; ++upper) {
      if (!segment.graph().PutUpper({uppers[2 * upper], uppers[2 * upper + 1]},
                                    upper_links.data() + std::size_t{file.upper_first()[upper]} * (header.m + 1))) {
        return ResourceExhausted(file.path() + ": more levels than index.capacity has room for");
      }
    }
    for (std::uint32_t slot = 0; slot < header.rows; ++slot) {
      if ((nodes[slot / 64] >> (slot % 64) & 1) != 0) segment.PutNode(slot);
    }
    segment.graph().PutEntry({header.entry_upper, header.entry_level});
  }
  for (const std::uint32_t slot : fresh) {
    std::unique_lock lock(writer_mu_);
    FRESHET_TRY(WaitForRoom(&lock));
    segment_->PushFresh(slot);
    work_.notify_one();
  }
  return Status::Ok();
}

Result<std::unique_ptr<Index>> OpenHnswIndex(const std::string& path, const HnswOptions& options) {
  FRESHET_TRY(options.Validate());
  return Guarded("for the index", [&]() -> Result<std::unique_ptr<Index>> {
    FRESHET_ASSIGN(const std::unique_ptr<IndexFile> file, IndexFile::Open(path, true));
    auto made = std::make_unique<HnswIndex>(options);
    FRESHET_TRY(made->Load(*file));
    return std::unique_ptr<Index>(std::move(made));
  });
}

}  // namespace freshet
