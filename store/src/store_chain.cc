#include "store_chain.h"

#include <optional>

#include "freshet/core/bytes.h"
#include "freshet/core/strings.h"

namespace freshet {
namespace {

constexpr std::uint8_t kVersion = 1;

// The commits after `before` up to `last`; `missing` is the first that is not there, 0 where all are.
struct Links {
  std::uint64_t before = 0;
  std::uint64_t last = 0;
  std::uint64_t missing = 0;
};

std::string Encode(const Links& links) {
  ByteWriter out;
  out.Put(kVersion).Put(links.before).Put(links.last).Put(links.missing);
  return out.Take();
}

std::optional<Links> Decode(std::string_view bytes) {
  ByteReader in(bytes);
  const auto version = in.Get<std::uint8_t>();
  Links links;
  links.before = in.Get<std::uint64_t>();
  links.last = in.Get<std::uint64_t>();
  links.missing = in.Get<std::uint64_t>();
  if (!in.finished() || version != kVersion) return std::nullopt;
  return links;
}

// Never refuses: an operator that fails stops compactions for good. What does not decode is a gap from the start.
class Chain final : public rocksdb::AssociativeMergeOperator {
 public:
  bool Merge(const rocksdb::Slice& /*key*/, const rocksdb::Slice* existing, const rocksdb::Slice& operand,
             std::string* merged, rocksdb::Logger* /*log*/) const override {
    const auto right = Decode(operand.ToStringView());
    const auto left = existing == nullptr ? right : Decode(existing->ToStringView());
    Links both;
    if (!left || !right) {
      both.missing = 1;
    } else if (existing == nullptr) {
      both = *right;
    } else {
      both = {left->before, right->last, left->missing};
      if (both.missing == 0) both.missing = left->last == right->before ? right->missing : left->last + 1;
    }
    *merged = Encode(both);
    return true;
  }
  [[nodiscard]] const char* Name() const override { return "freshet.chain"; }
};

}  // namespace

const rocksdb::Slice* RowsEnd() {
  static const rocksdb::Slice end("\xff", 1);
  return &end;
}

std::string EncodeLink(std::uint64_t number) { return Encode({number == 0 ? 0 : number - 1, number, 0}); }

Result<std::uint64_t> DecodeChain(std::string_view bytes) {
  const auto links = Decode(bytes);
  if (!links) return Corruption("the chain of commits does not decode");
  const std::uint64_t missing = links->before != 0 ? 1 : links->missing;
  if (missing == 0) return links->last;
  return Corruption(StrCat("commit ", missing, " is missing, though later ones are there (up to ", links->last, ")"));
}

std::shared_ptr<rocksdb::MergeOperator> ChainOperator() { return std::make_shared<Chain>(); }

}  // namespace freshet
