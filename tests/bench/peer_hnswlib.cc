// Compiled for this machine's processor. Under another name, so that the linker does not take its inline functions for
// those of the index, or the other way round.
#define hnswlib hnswlib_peer
#include <hnswlib/hnswlib.h>

#include "peer_hnswlib.h"

namespace freshet::bench {

struct PeerHnswlib::Impl {
  std::unique_ptr<hnswlib::SpaceInterface<float>> space;
  std::unique_ptr<hnswlib::HierarchicalNSW<float>> index;
  bool replace_deleted = false;
};

PeerHnswlib::PeerHnswlib(bool l2, int dim, std::size_t capacity, std::size_t m, std::size_t ef_construction,
                         bool replace_deleted)
    : impl_(std::make_unique<Impl>()) {
  const auto width = static_cast<std::size_t>(dim);
  if (l2) {
    impl_->space = std::make_unique<hnswlib::L2Space>(width);
  } else {
    impl_->space = std::make_unique<hnswlib::InnerProductSpace>(width);
  }
  impl_->replace_deleted = replace_deleted;
  impl_->index = std::make_unique<hnswlib::HierarchicalNSW<float>>(impl_->space.get(), capacity, m, ef_construction, 42,
                                                                   replace_deleted);
}
PeerHnswlib::~PeerHnswlib() = default;

void PeerHnswlib::Add(std::uint64_t label, const float* vector) {
  impl_->index->addPoint(vector, label, impl_->replace_deleted);
}
void PeerHnswlib::Delete(std::uint64_t label) { impl_->index->markDelete(label); }
void PeerHnswlib::SetEf(std::size_t ef) { impl_->index->setEf(ef); }

std::vector<std::uint64_t> PeerHnswlib::Search(const float* query, std::size_t k) const {
  auto found = impl_->index->searchKnn(query, k);
  std::vector<std::uint64_t> labels(found.size());
  for (std::size_t i = found.size(); i > 0; found.pop()) labels[--i] = found.top().second;
  return labels;
}

}  // namespace freshet::bench
